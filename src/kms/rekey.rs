//! Another root key for a keystore: all that is under the old one is put under the new one, in one transaction.

use super::call::Call;
use super::claim::Kind;
use super::root::{RootKey, RootKeys};
use super::root_file;
use super::root_text::{Material, RootKeyExport};
use super::schema::{META, META_CHECK, META_ROOT_KIND, META_ROOT_SLOTS, TABLES};
use super::store::Store;
use super::tx::Tx;
use super::{LocalKms, wrapped};
use crate::error::{Error, Result};
use rusqlite::types::Value;

impl LocalKms {
    /// Puts the keystore under another root key: after a leak, or to keep it in another way (a file, a passphrase, a
    /// value; [`rekey_sealed`](Self::rekey_sealed) for a key provider). Everything that is wrapped or authenticated
    /// under the old root key is so under the new one, in one transaction. The keys stay the same, and so does what
    /// was encrypted under them.
    ///
    /// For a [`file`](RootKey::file), a fresh root key is made: it is durable beside the one that is there
    /// (`<root key>.new`) before the transaction, and takes its place after it. Killed at any instant, the keystore
    /// opens with the file that is named. A [`value`](RootKey::value) must be kept by the caller before it is given:
    /// [`new_root_key`](Self::new_root_key) makes one.
    ///
    /// This handle and its clones go on working. Other handles, and other processes, get an error of kind
    /// [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) that says to reopen. **Older copies of the file still open
    /// with the root key of their day**: after a leak, whoever has both has the keys that were in them.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// kms.rekey(envelock::RootKey::file("root.key")?).await?;
    /// kms.backup("keys-after-rekey.db").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; [`InvalidInput`](crate::ErrorKind::InvalidInput) if
    /// the new root key is the old one or another keystore's, or the file holds another keystore's;
    /// [`Io`](crate::ErrorKind::Io), [`Busy`](crate::ErrorKind::Busy), [`Storage`](crate::ErrorKind::Storage): the
    /// keystore is under its old root key then.
    pub async fn rekey(&self, root: RootKey) -> Result<()> {
        let call = self.asks("RekeyKeystore");
        self.look(move |store| store.rekey(&root, call)).await
    }

    /// A fresh root key for this keystore, as text, which [`rekey`](Self::rekey) takes as a [`RootKey::value`].
    /// Nothing is changed, and nothing is kept of it here.
    ///
    /// # Errors
    /// [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub fn new_root_key(&self) -> Result<RootKeyExport> {
        Material::generate_for(self.realm().keystore_id)?.export()
    }
}

impl Store {
    /// Puts the keystore under a root key from `root`.
    fn rekey(&mut self, root: &RootKey, call: Call) -> Result<()> {
        let (material, kind, file) = root.for_rekey(self.realm().keystore_id)?;
        let successor = RootKeys::derive(&material)?;
        let call = call.with("rootKeyKind", kind.name());
        let mut done = Ok(());
        self.write_under(Some(successor), |group| {
            done = group.run(&call, |tx| {
                tx.permit_owner("RekeyKeystore")?;
                if tx.keys.are_of(&material)? {
                    return Err(Error::invalid_input("this is the root key that the keystore has already"));
                }
                if let Some(file) = &file {
                    root_file::prepare(file, &material, tx.keys)?;
                }
                replace(tx, kind)
            });
        })?;
        done?;
        if let Some(file) = &file {
            // The keystore is under the new root key, which the next opening finds beside the old one, and moves.
            let _ = self.alone(|keys| root_file::finish(file, keys));
        }
        Ok(())
    }
}

/// Writes every row anew under the successor, which takes over if all goes well.
fn replace(tx: &mut Tx<'_>, kind: Kind) -> Result<()> {
    let old = tx.keys;
    let new = tx.successor.ok_or_else(|| Error::internal("no root key takes over"))?;
    let mut rows = Vec::new();
    for table in TABLES {
        let mut all = tx.rows(table)?;
        all.iter_mut().try_for_each(|columns| wrapped::rewrap(old, new, table, columns))?;
        rows.push((table, all));
    }
    let meta = rows.iter_mut().find(|(table, _)| table.name == META.name).and_then(|(_, all)| all.first_mut());
    let meta = meta.ok_or_else(|| Error::tampered("it has no row that names it"))?;
    if let Some(columns) = meta.get_mut(META_ROOT_KIND..=META_ROOT_SLOTS) {
        columns[0] = Value::Text(kind.name().to_owned());
        columns[META_CHECK - META_ROOT_KIND] = Value::Blob(new.check.to_vec());
        columns[META_CHECK + 1 - META_ROOT_KIND..].clone_from_slice(&kind.columns());
    }
    tx.keys = new;
    let replaced = rows.into_iter().try_for_each(|(table, all)| tx.replace_all(table, all));
    if replaced.is_err() {
        tx.keys = old;
    }
    replaced
}
