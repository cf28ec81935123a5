//! What a keystore knows of a key's other keystores, and what a file may change of it: pure, so that each rule is
//! one function with a test.
//!
//! Shared by all replicas, as in AWS KMS: key id, material and its versions, where it comes from, automatic rotation.
//! Each one's own: Region, state, description, aliases, tags, policy, grants, when it was made and deleted. Only the
//! primary key changes what is shared, and only it is replicated.

use super::content::SharedVersion;
use super::frame::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::kms::key::MultiRegionKeyType;
use crate::kms::key::Realm;

/// One of a multi-Region key's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MultiRegionKey {
    /// The full key name, `envelock:<region>:<keystore id>:key/<key id>`.
    pub arn: String,
    /// The keystore's Region.
    pub region: String,
}

/// AWS's `MultiRegionConfiguration` of `DescribeKey`: a multi-Region key's keys, as far as this keystore has been
/// told. The primary key knows all replicas that it made; a replica knows those of the moment that it was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MultiRegionConfiguration {
    /// Which one is here.
    pub multi_region_key_type: MultiRegionKeyType,
    /// The primary key, which may be here.
    pub primary_key: MultiRegionKey,
    /// The replicas, by Region, one of which may be here.
    pub replica_keys: Vec<MultiRegionKey>,
}

/// The keystores that have a multi-Region key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) key_id: String,
    pub(crate) primary: Realm,
    /// By Region; one of each at most, and never the primary's.
    pub(crate) replicas: Vec<Realm>,
}

impl Family {
    /// Of a primary key that has no replica.
    pub(crate) fn alone(key_id: &str, here: Realm) -> Self {
        Self { key_id: key_id.to_owned(), primary: here, replicas: Vec::new() }
    }

    /// Of a replica that a bundle makes.
    pub(crate) fn of_bundle(address: &Address) -> Self {
        Self { key_id: address.key_id.clone(), primary: address.issuer.clone(), replicas: vec![address.target.clone()] }
    }

    pub(crate) fn configuration(&self, here: &Realm) -> MultiRegionConfiguration {
        let key = |realm: &Realm| MultiRegionKey { arn: realm.full_name(&self.key_id), region: realm.region.clone() };
        MultiRegionConfiguration {
            multi_region_key_type: match self.is_primary(here) {
                true => MultiRegionKeyType::Primary,
                false => MultiRegionKeyType::Replica,
            },
            primary_key: key(&self.primary),
            replica_keys: self.replicas.iter().map(key).collect(),
        }
    }

    fn is_primary(&self, here: &Realm) -> bool {
        self.primary.keystore_id == here.keystore_id
    }

    /// What only the primary key does: rotate, be replicated, choose its successor, change shared properties.
    ///
    /// # Errors
    /// UnsupportedOperationException, of kind InvalidInput, at a replica.
    pub(crate) fn check_primary(&self, here: &Realm) -> Result<()> {
        if self.is_primary(here) {
            return Ok(());
        }
        let primary = self.primary.full_name(&self.key_id);
        Err(Error::invalid_input(format!("this is a replica; the primary key is {primary}"))
            .with_code("UnsupportedOperationException")
            .with_advice("do it there, and import the file that it makes; or make this the primary key first"))
    }

    /// A replica in `target`, told to the primary key when its bundle is made. A bundle may be made again for a
    /// keystore that has one: it may have been lost on its way.
    ///
    /// # Errors
    /// As [`check_primary`](Self::check_primary); AlreadyExistsException, of kind InvalidInput, for a Region in which
    /// another keystore has the key.
    pub(crate) fn replicate(&mut self, here: &Realm, target: &Realm) -> Result<()> {
        self.check_primary(here)?;
        let same_region = |realm: &&Realm| realm.region == target.region;
        match std::iter::once(&self.primary).chain(&self.replicas).find(same_region) {
            None => {
                self.replicas.push(target.clone());
                self.replicas.sort_by(|one, other| one.region.cmp(&other.region));
                Ok(())
            }
            Some(known) if known == target && !self.is_primary(target) => Ok(()),
            Some(known) => Err(Error::invalid_input(format!("the key has one in this Region already, in {known}"))
                .with_code("AlreadyExistsException")
                .with_advice("a multi-Region key has one key in each Region: replicate it into another")),
        }
    }

    /// What the primary key does to make `successor`'s replica the primary key: it steps down, and only then issues
    /// the file that says so, so that there are never two.
    ///
    /// # Errors
    /// As [`check_primary`](Self::check_primary); NotFoundException, of kind NoMatchingKey, if there is no replica.
    pub(crate) fn step_down(&mut self, here: &Realm, successor: &Realm) -> Result<()> {
        self.check_primary(here)?;
        if !self.replicas.contains(successor) {
            return Err(Error::new(ErrorKind::NoMatchingKey, format!("there is no replica in {successor}"))
                .with_code("NotFoundException")
                .with_advice("replicate the key there first"));
        }
        self.succeed(successor);
        Ok(())
    }

    /// What may be said in a primary-change file: only the primary that the issuer, having stepped down, knows.
    ///
    /// # Errors
    /// UnsupportedOperationException, of kind InvalidInput, while the key here is the primary one.
    pub(crate) fn check_stepped_down(&self, here: &Realm) -> Result<&Realm> {
        if self.is_primary(here) {
            return Err(Error::invalid_input("the key here is the primary key: it has not stepped down")
                .with_code("UnsupportedOperationException")
                .with_advice("update the primary Region first; the file is made after it"));
        }
        Ok(&self.primary)
    }

    /// Takes a primary-change file, at a replica.
    ///
    /// # Errors
    /// Kind InvalidInput if its issuer is not the primary key that this keystore knows of.
    pub(crate) fn primary_changed(&mut self, issuer: &Realm, primary: &Realm) -> Result<()> {
        self.check_from_primary(issuer)?;
        self.succeed(primary);
        Ok(())
    }

    /// Takes a deletion receipt: `issuer` no longer has the key.
    ///
    /// # Errors
    /// Kind InvalidInput if the issuer is no replica here, whoever else it is.
    pub(crate) fn deleted(&mut self, issuer: &Realm) -> Result<()> {
        let before = self.replicas.len();
        self.replicas.retain(|realm| realm.keystore_id != issuer.keystore_id);
        if self.replicas.len() == before {
            return Err(Error::invalid_input(format!("no replica is known in {issuer}: there is nothing to forget"))
                .with_advice("check which key and keystore this receipt is of"));
        }
        Ok(())
    }

    /// Whether a primary key that was scheduled for deletion may go: when its last replica has.
    pub(crate) fn may_be_deleted(&self) -> bool {
        self.replicas.is_empty()
    }

    /// # Errors
    /// Kind InvalidInput unless `issuer` is the primary key that this keystore knows of.
    pub(crate) fn check_from_primary(&self, issuer: &Realm) -> Result<()> {
        if self.primary == *issuer {
            return Ok(());
        }
        Err(Error::invalid_input(format!("this file is from {issuer}, and the primary key is in {}", self.primary))
            .with_advice("import the primary change first, if there was one; else have the primary key make this file"))
    }

    /// `successor` is the primary key, and the one before it a replica.
    fn succeed(&mut self, successor: &Realm) {
        self.replicas.retain(|realm| realm.keystore_id != successor.keystore_id);
        if !self.is_primary(successor) {
            self.replicas.push(std::mem::replace(&mut self.primary, successor.clone()));
            self.replicas.sort_by(|one, other| one.region.cmp(&other.region));
        }
    }
}

/// A file is taken once: its serial is higher than that of the last one that was taken from its issuer about this
/// key. An older file that comes late is refused with it, since it could undo what was said after it.
///
/// # Errors
/// Kind InvalidInput.
pub(crate) fn check_serial(last: Option<u64>, address: &Address) -> Result<()> {
    match last {
        Some(last) if address.serial <= last => Err(Error::invalid_input(format!(
            "this file has the serial {} of {}, and {last} was taken already",
            address.serial, address.issuer
        ))
        .with_advice("it was imported before, or a later one was: have it made anew if something is missing")),
        _ => Ok(()),
    }
}

/// A bundle makes a key, and never replaces one: neither its material nor what is known of it.
///
/// # Errors
/// AlreadyExistsException, of kind InvalidInput, if the keystore has a key of that id in any state.
pub(crate) fn check_new(key_id: &str, exists: Option<&str>) -> Result<()> {
    match exists {
        None => Ok(()),
        Some(state) => Err(Error::invalid_input(format!("this keystore has the key {key_id} already: it is {state}"))
            .with_code("AlreadyExistsException")
            .with_advice("nothing was changed; later versions come by a rotation file, and a bundle only makes a key")),
    }
}

/// The versions of a rotation file that are new here, where `current` is the newest one: none that is here is replaced,
/// and none is left out.
///
/// # Errors
/// Kind InvalidInput if nothing is new, or if one between is missing.
pub(crate) fn new_versions(current: u32, versions: &[SharedVersion]) -> Result<&[SharedVersion]> {
    let new = versions.get(versions.partition_point(|it| it.version <= current)..).unwrap_or_default();
    let Some(first) = new.first().map(|it| it.version) else {
        return Err(Error::invalid_input(format!("this file has no later version than {current}, which is here"))
            .with_advice("nothing was changed: the rotation was imported before"));
    };
    let numbers = new.iter().map(|it| it.version);
    let expected = (1..).map_while(|more| current.checked_add(more));
    if let Some((missing, _)) = expected.zip(numbers).find(|(expected, number)| expected != number) {
        return Err(Error::invalid_input(format!("version {missing} is missing before version {first} or after it"))
            .with_advice("nothing was changed: have the primary key make a rotation file from that version on"));
    }
    Ok(new)
}

/// What a replica answers to what was encrypted under a version that it has not been told of.
pub(crate) fn version_not_here(key_id: &str, version: u32) -> Error {
    Error::new(
        ErrorKind::NoMatchingKey,
        format!("version {version} of the key {key_id} is not here: import the rotation of the key {key_id}"),
    )
    .with_code("KeyUnavailableException")
    .with_advice("have the primary key's keystore make a rotation file for this one, and import it")
}
