//! Everything that was ever encrypted, under every kind of key, opens after each step of a keystore's life: what one step
//! leaves whole the next must too.
//!
//! A [`Scene`] keeps what it encrypts after every step, as a blob and as a native message for each alias, and opens all
//! that it has kept after the next one.

use crate::kms_helper::Hands;
use crate::support::child::long;
use envelock::clock::Clock;
use envelock::kms::{
    DeletionWindow, ImportKeyMaterialRequest, KeyManager, KeyMetadata, KeyOrigin, KeyState, MultiRegionKeyType,
    ReplicationParameters, RestoreOptions, seal_key_material,
};
use envelock::{CreateKeyRequest, EncryptionContext, Envelope, KmsOptions, LocalKms, PassphraseCost, RootKey, Secret};
use pollster::block_on;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Something that was encrypted, in which step and under what name.
#[derive(Clone)]
struct Piece {
    when: String,
    made_in: Option<&'static str>,
    alias: String,
    context: EncryptionContext,
    form: Form,
    says: Vec<u8>,
}

#[derive(Clone)]
enum Form {
    Blob(Vec<u8>),
    Message(Vec<u8>),
}

/// A keystore and all that was ever encrypted under it.
struct Scene {
    folder: TempDir,
    hands: Arc<Hands>,
    kms: LocalKms,
    region: Option<&'static str>,
    pieces: Vec<Piece>,
    /// Under which alias, key and version of it, in which generation of the keystore something was encrypted.
    sealed: BTreeSet<(String, String, u32, u32)>,
    generation: u32,
    /// The imported material of this scene, by key and version.
    materials: BTreeMap<(String, u32), u8>,
    next_material: u8,
}

/// The day on which the frozen keystores were made, in seconds.
const THAT_DAY: u64 = 1_795_740_000;

const PASSPHRASE: &[u8] = b"correct horse battery staple";

fn tenant() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

impl Scene {
    fn new(region: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::file(folder.path().join("root.key")).unwrap();
        Self::open(folder, root, Some(region), KmsOptions::default())
    }

    /// A copy of a keystore that an older version wrote, with what was encrypted under it then.
    fn frozen(schema: u32, messages: &[(&str, &str, bool, &str)]) -> Self {
        let of = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/keystore-{schema}"));
        let folder = tempfile::tempdir().unwrap();
        fs::copy(of.join("keys.db"), folder.path().join("keys.db")).unwrap();
        let root = RootKey::value(&fs::read_to_string(of.join("root-key.txt")).unwrap()).unwrap();
        let mut scene = Self::open(folder, root, None, KmsOptions::default().must_exist());
        for &(name, alias, with_context, says) in messages {
            scene.pieces.push(Piece {
                when: format!("by schema {schema}"),
                made_in: None,
                alias: alias.to_owned(),
                context: if with_context { tenant() } else { EncryptionContext::new() },
                form: Form::Message(fs::read(of.join(name)).unwrap()),
                says: says.as_bytes().to_vec(),
            });
        }
        scene
    }

    fn open(folder: TempDir, root: RootKey, region: Option<&'static str>, options: KmsOptions) -> Self {
        let hands = Hands::at(THAT_DAY);
        let kms = open(&folder.path().join("keys.db"), root, region, &hands, options);
        Self {
            folder,
            hands,
            kms,
            region,
            pieces: Vec::new(),
            sealed: BTreeSet::new(),
            generation: 0,
            materials: BTreeMap::new(),
            next_material: 1,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root_key(&self) -> RootKey {
        RootKey::file(self.path("root.key")).unwrap()
    }

    /// Those that may be used: an old keystore has one of a key that is to be deleted.
    fn aliases(&self) -> Vec<String> {
        let mut aliases: Vec<_> =
            block_on(self.kms.list_aliases()).unwrap().into_iter().map(|it| it.alias_name).collect();
        aliases.retain(|alias| block_on(self.kms.describe_key(alias)).unwrap().key_state == KeyState::Enabled);
        aliases
    }

    /// The keys of customers that are in use.
    fn own_keys(&self) -> Vec<KeyMetadata> {
        let mut keys = block_on(self.kms.list_keys()).unwrap();
        keys.retain(|key| key.key_manager == KeyManager::Customer && key.key_state == KeyState::Enabled);
        keys
    }

    /// Opens all that was ever encrypted, as far as this keystore has its key, and encrypts more under each alias whose
    /// key or version, or the keystore's root key or file, is not the same as before.
    #[track_caller]
    fn after(&mut self, step: &str) {
        let aliases = self.aliases();
        let opened = self.pieces.iter().filter(|piece| aliases.contains(&piece.alias));
        opened.for_each(|piece| self.opens(piece, step));
        for alias in aliases {
            let key = block_on(self.kms.describe_key(&alias)).unwrap();
            if !self.sealed.insert((alias.clone(), key.key_id, key.current_version, self.generation)) && !long() {
                continue;
            }
            let says = format!("{step}, {alias}").into_bytes();
            let blob = block_on(self.kms.encrypt(&alias, &says, &tenant())).unwrap().ciphertext_blob;
            let message = block_on(self.envelope(&alias).encrypt(&says, &tenant())).unwrap();
            for form in [Form::Blob(blob), Form::Message(message)] {
                let (when, alias, says) = (step.to_owned(), alias.clone(), says.clone());
                self.pieces.push(Piece { when, made_in: self.region, alias, context: tenant(), form, says });
            }
        }
    }

    fn envelope(&self, alias: &str) -> Envelope {
        Envelope::builder(self.kms.provider(alias).unwrap()).build().unwrap()
    }

    #[track_caller]
    fn opens(&self, piece: &Piece, step: &str) {
        let opened = match &piece.form {
            Form::Blob(blob) => block_on(self.kms.decrypt(blob, &piece.context)).map(|it| it.plaintext().to_vec()),
            Form::Message(message) => block_on(self.envelope(&piece.alias).decrypt(message, &piece.context)),
        };
        let kind = if matches!(piece.form, Form::Blob(_)) { "blob" } else { "message" };
        match opened {
            Ok(opened) => assert_eq!(opened, piece.says),
            Err(e) => panic!("{step}: a {kind} made {} under {} does not open: {e}", piece.when, piece.alias),
        }
    }

    fn import(&mut self, key: &str, byte: u8, new: bool) {
        let cost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };
        let text = seal_key_material(&Secret::init(|out| out.fill(byte)), PASSPHRASE, cost).unwrap();
        let request = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), PASSPHRASE);
        let request = if new { request.new_key_material() } else { request };
        let version = block_on(self.kms.import_key_material(key, request)).unwrap().version;
        self.materials.insert((key.to_owned(), version), byte);
    }

    fn import_fresh(&mut self, key: &str, new: bool) {
        self.next_material += 1;
        self.import(key, self.next_material, new);
    }

    /// All steps that a keystore takes alone.
    fn live(&mut self) {
        self.after("first");
        for key in self.own_keys() {
            if key.origin == KeyOrigin::External {
                // What is not the last any more still opens what it sealed, also while the new waits.
                if key.multi_region != Some(MultiRegionKeyType::Replica) {
                    self.import_fresh(&key.key_id, true);
                    self.after("new material waits");
                    block_on(self.kms.rotate(&key.key_id)).unwrap();
                }
            } else if key.multi_region != Some(MultiRegionKeyType::Replica) {
                block_on(self.kms.rotate(&key.key_id)).unwrap();
            }
        }
        self.after("rotated");
        self.hands.set(self.hands.wall().as_secs() + 366 * 86_400);
        self.after("a year later");
        for key in self.own_keys() {
            block_on(self.kms.disable_key(&key.key_id)).unwrap();
            block_on(self.kms.enable_key(&key.key_id)).unwrap();
        }
        self.after("disabled and enabled again");
        for key in self.own_keys() {
            block_on(self.kms.schedule_key_deletion(&key.key_id, DeletionWindow::default())).unwrap();
            block_on(self.kms.cancel_key_deletion(&key.key_id)).unwrap();
            block_on(self.kms.enable_key(&key.key_id)).unwrap();
        }
        self.after("deletion cancelled");
        self.move_an_alias();
        self.after("alias moved");
        for ((key, version), byte) in self.materials.clone() {
            block_on(self.kms.delete_imported_key_material_of(&key, version)).unwrap();
            self.import(&key, byte, false);
        }
        self.after("material deleted and imported again");
        block_on(self.kms.rekey(self.root_key())).unwrap();
        self.generation += 1;
        self.after("rekeyed");
        self.restore();
        self.generation += 1;
        self.after("restored from a backup");
        block_on(self.kms.check()).unwrap();
        block_on(self.kms.verify_audit(None)).unwrap();
    }

    /// To a key that is made for it, and so that what was sealed through it before is under another.
    fn move_an_alias(&mut self) {
        let request = CreateKeyRequest::default();
        let other = block_on(self.kms.create_key(request)).unwrap().key_id;
        match self.aliases().iter().any(|alias| alias == MOVED) {
            true => block_on(self.kms.update_alias(MOVED, &other)).unwrap(),
            false => {
                block_on(self.kms.create_alias(MOVED, &other)).unwrap();
                self.after("alias made");
                self.move_an_alias();
            }
        }
    }

    /// Closes the keystore and goes on with what a backup of it gives, in another folder.
    fn restore(&mut self) {
        let (backup, folder) = (self.path("backup.db"), tempfile::tempdir().unwrap());
        block_on(self.kms.backup(&backup)).unwrap();
        block_on(self.kms.close()).unwrap();
        let path = folder.path().join("keys.db");
        let clock = || Arc::clone(&self.hands) as Arc<dyn Clock>;
        LocalKms::restore(&backup, &path, self.root_key(), RestoreOptions::default().clock(clock())).unwrap();
        fs::copy(self.path("root.key"), folder.path().join("root.key")).unwrap();
        self.folder = folder;
        self.kms = open(&path, self.root_key(), self.region, &self.hands, KmsOptions::default().must_exist());
    }

    /// What was encrypted in another keystore under the keys that both have.
    fn takes_over_from(&mut self, other: &Self) {
        self.pieces.retain(|piece| piece.made_in == self.region);
        let made_there = other.pieces.iter().filter(|piece| piece.made_in == other.region);
        self.pieces.extend(made_there.filter(|piece| SHARED.contains(&&*piece.alias)).cloned());
    }

    fn replication_key(&self) -> ReplicationParameters {
        block_on(self.kms.replication_parameters()).unwrap()
    }
}

/// The aliases of keys that both keystores have.
const SHARED: [&str; 2] = ["alias/shared", "alias/imported-shared"];
const MOVED: &str = "alias/moved";

fn open(path: &Path, root: RootKey, region: Option<&str>, hands: &Arc<Hands>, options: KmsOptions) -> LocalKms {
    // Nobody kills this process, and so the many calls that only open need not wait for the disk.
    let options = options.clock(Arc::clone(hands) as Arc<dyn Clock>).risk_losing_audit_records(Duration::from_secs(1));
    let options = match region {
        Some(region) => options.region(region),
        None => options,
    };
    LocalKms::open_with(path, root, options).unwrap()
}

/// Brings the rotations of `keys` from one keystore to the other.
fn tell_rotations(from: &Scene, to: &Scene, keys: &[String]) {
    let target = to.replication_key();
    for key in keys {
        let rotation = block_on(from.kms.export_rotation(key, &target.file, &target.fingerprint)).unwrap();
        block_on(to.kms.import_rotation(&rotation.file)).unwrap();
    }
}

#[test]
fn all_that_every_kind_of_key_ever_encrypted_opens_after_every_step() {
    let (mut eu, mut us) = (Scene::new("eu-1"), Scene::new("us-1"));
    eu.kms.provider("alias/envelock/default").unwrap();
    let made =
        |request: CreateKeyRequest, alias: &str| block_on(eu.kms.create_key(request.alias(alias))).unwrap().key_id;
    let new = CreateKeyRequest::default;
    made(new(), "alias/orders");
    let imported = made(new().external(), "alias/imported");
    let shared = [made(new().multi_region(), SHARED[0]), made(new().multi_region().external(), SHARED[1])];
    eu.import_fresh(&imported, false);
    eu.import_fresh(&shared[1], false);
    eu.live();
    // The other keystore gets all versions so far, and becomes the primary one.
    let target = us.replication_key();
    for (key, alias) in shared.iter().zip(SHARED) {
        let bundle = block_on(eu.kms.replicate_key(key, &target.file, &target.fingerprint)).unwrap();
        block_on(us.kms.import_replica(&bundle.file, &bundle.sha256)).unwrap();
        block_on(us.kms.create_alias(alias, key)).unwrap();
    }
    us.hands.set(eu.hands.wall().as_secs());
    us.takes_over_from(&eu);
    us.after("replicated");
    for key in &shared {
        let change = block_on(eu.kms.update_primary_region(key, "us-1")).unwrap();
        block_on(us.kms.import_primary_change(&change.file)).unwrap();
    }
    us.after("promoted");
    eu.after("no primary any more");
    us.next_material = 100;
    us.live();
    tell_rotations(&us, &eu, &shared);
    eu.takes_over_from(&us);
    eu.live();
    us.takes_over_from(&eu);
    us.after("the end");
    let managed = block_on(eu.kms.describe_key("alias/envelock/default")).unwrap();
    assert!(managed.current_version >= 3, "it was rotated each year");
    for scene in [&eu, &us] {
        assert!(scene.pieces.iter().any(|piece| piece.alias == MOVED));
    }
}

#[test]
fn all_that_older_versions_encrypted_opens_after_every_step() {
    const OF_SCHEMA_1: [(&str, &str, bool, &str); 4] = [
        ("before-rotation.elk", "alias/orders", true, "encrypted before the rotation"),
        ("after-rotation.elk", "alias/orders", true, "encrypted after the rotation"),
        ("under-the-default-key.elk", "alias/envelock/default", false, "encrypted under the managed key"),
        ("through-the-moved-alias.elk", "alias/invoices", false, "encrypted before the alias was moved back"),
    ];
    const LATER: [(&str, &str, bool, &str); 5] = [
        OF_SCHEMA_1[0],
        OF_SCHEMA_1[1],
        OF_SCHEMA_1[2],
        ("under-imported-material.elk", "alias/imported", false, "encrypted under imported material"),
        ("under-a-shared-key.elk", "alias/shared", false, "encrypted under a multi-Region key"),
    ];
    for (schema, messages) in [(1, &OF_SCHEMA_1[..]), (2, &LATER[..]), (3, &LATER[..])] {
        let mut scene = Scene::frozen(schema, messages);
        let root = RootKey::file(scene.path("root.key")).unwrap();
        block_on(scene.kms.rekey(root)).unwrap();
        scene.live();
        let aliases = scene.aliases();
        assert!(messages.iter().all(|(_, alias, ..)| aliases.iter().any(|it| it == alias)), "nothing is skipped");
    }
}
