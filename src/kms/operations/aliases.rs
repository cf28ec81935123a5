//! Aliases: names of keys that can be moved.

use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::alias::Alias;
use crate::kms::answers::AliasEntry;
use crate::kms::key::{KeyName, MANAGED_PREFIX, check_alias, not_found, validation};
use crate::kms::page::{Page, PageLimits, PageRequest};
use crate::kms::records::KeyRecord;
use crate::kms::state::KeyOperation;
use crate::kms::tx::Tx;

impl LocalKms {
    /// Makes an alias, `alias/…`, that points to a customer key.
    ///
    /// # Errors
    /// AlreadyExistsException, InvalidAliasNameException (also below `alias/envelock/`),
    /// KMSInvalidStateException, NotFoundException, ValidationException, AccessDeniedException; the keystore's own
    /// failures.
    pub async fn create_alias(&self, alias: &str, key: &str) -> Result<()> {
        let (alias, name) = (alias.to_owned(), key.to_owned());
        let call = self.asks("CreateAlias").with("aliasName", alias.as_str()).with("targetKeyId", key);
        self.call(call, move |tx| {
            check_free(tx, &alias)?;
            let key = alias_target(tx, &name, KeyOperation::CreateAlias)?;
            Alias::create(tx, &alias, &key.key_id)
        })
        .await
    }

    /// Moves an alias to another customer key, at once for everybody. Providers named by the alias
    /// still open what was encrypted under every key that it ever pointed to.
    ///
    /// # Errors
    /// As [`create_alias`](Self::create_alias), and NotFoundException if the alias does not exist.
    pub async fn update_alias(&self, alias: &str, key: &str) -> Result<()> {
        let (alias, name) = (alias.to_owned(), key.to_owned());
        let call = self.asks("UpdateAlias").with("aliasName", alias.as_str()).with("targetKeyId", key);
        self.call(call, move |tx| {
            let found = existing_alias(tx, &alias)?;
            let before = KeyRecord::existing(tx, &found.key_id)?;
            tx.event.key_id.clone_from(&before.key_id);
            tx.permit(&before, KeyOperation::UpdateAlias, None)?;
            let key = alias_target(tx, &name, KeyOperation::UpdateAlias)?;
            found.point_to(tx, &key.key_id)
        })
        .await
    }

    /// Removes an alias; the key stays. What it pointed to stays known: made again, it opens that too.
    ///
    /// # Errors
    /// NotFoundException, InvalidAliasNameException, AccessDeniedException; the keystore's own failures.
    pub async fn delete_alias(&self, alias: &str) -> Result<()> {
        let alias = alias.to_owned();
        self.call(self.asks("DeleteAlias").with("aliasName", alias.as_str()), move |tx| {
            let found = existing_alias(tx, &alias)?;
            let key = KeyRecord::existing(tx, &found.key_id)?;
            tx.allow(&key, KeyOperation::DeleteAlias, None)?;
            found.delete(tx)
        })
        .await
    }

    /// Every alias, by name.
    ///
    /// # Errors
    /// AccessDeniedException; the keystore's own failures.
    pub async fn list_aliases(&self) -> Result<Vec<AliasEntry>> {
        self.call(self.asks("ListAliases"), |tx| {
            tx.permit_owner("ListAliases")?;
            Ok(Alias::all(tx)?.into_iter().map(Alias::entry).collect())
        })
        .await
    }

    /// As [`list_aliases`](Self::list_aliases), a page of them.
    ///
    /// # Errors
    /// As [`list_aliases`](Self::list_aliases), and ValidationException, InvalidMarkerException for the page.
    pub async fn list_aliases_page(&self, page: PageRequest) -> Result<Page<AliasEntry>> {
        self.call(self.asks("ListAliases"), move |tx| {
            tx.permit_owner("ListAliases")?;
            page.of(
                PageLimits::ALIASES,
                Alias::all(tx)?.into_iter().map(Alias::entry).collect(),
                |alias| alias.alias_name.clone(),
                |text| text.starts_with("alias/").then(|| text.to_owned()),
                String::clone,
            )
        })
        .await
    }

    /// The aliases of one key, by name.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn list_aliases_of(&self, key: &str) -> Result<Vec<AliasEntry>> {
        let name = key.to_owned();
        self.call(self.asks("ListAliases").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ListAliases, None)?;
            Ok(Alias::all(tx)?.into_iter().filter(|it| it.key_id == key.key_id).map(Alias::entry).collect())
        })
        .await
    }
}

/// Whether somebody may make the alias.
pub(in crate::kms) fn check_free(tx: &Tx<'_>, alias: &str) -> Result<()> {
    check_alias(alias)?;
    refuse_managed(alias)?;
    match Alias::find(tx, alias)? {
        None => Ok(()),
        Some(_) => Err(Error::invalid_input(format!("the alias {alias} exists already"))
            .with_code("AlreadyExistsException")
            .with_advice("choose another name, or point the alias to another key")),
    }
}

fn existing_alias(tx: &Tx<'_>, alias: &str) -> Result<Alias> {
    check_alias(alias)?;
    refuse_managed(alias)?;
    Alias::find(tx, alias)?.ok_or_else(|| not_found(format!("the alias {alias} does not exist")))
}

fn refuse_managed(alias: &str) -> Result<()> {
    match alias.starts_with(MANAGED_PREFIX) {
        false => Ok(()),
        true => Err(Error::invalid_input(format!("{alias} is of a managed key, which its first use makes"))
            .with_code("InvalidAliasNameException")
            .with_advice("choose a name that does not begin with `alias/envelock/`")),
    }
}

fn alias_target(tx: &mut Tx<'_>, name: &str, operation: KeyOperation) -> Result<KeyRecord> {
    let key = match tx.realm.resolve(name)? {
        KeyName::Id(_) => KeyRecord::existing(tx, name)?,
        KeyName::Alias(_) => {
            return Err(validation(format!("{name} is an alias, and an alias points to a key"))
                .with_advice("name the key by its id or full name"));
        }
    };
    tx.allow(&key, operation, None)?;
    Ok(key)
}
