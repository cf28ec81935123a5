//! No secret lies in the clear in any file of a keystore's folder, nor is one said by what the operations answer: looked for
//! after each step of a keystore's life.

use super::{CHEAP, Place, block_on, context};
use crate::kms::records::KeyRecord;
use crate::kms::{
    CreateKeyRequest, ImportKeyMaterialRequest, KmsOptions, LocalKms, RestoreOptions, RootKey, seal_key_material,
    wrap_key_material,
};
use crate::material::DataKeyLength;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

const PASSPHRASE: &[u8] = b"of a root key, and known to nobody else";
const IMPORT_PASSPHRASE: &[u8] = b"of the material, and known to nobody else";
const PLAINTEXT: &[u8] = b"the plaintext that is to be kept secret";
const CANARY: &str = "planted-canary";

/// What is looked for, by name, in each form in which it could be written down.
struct Needle {
    name: String,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    fn new(name: impl Into<String>, secret: &[u8]) -> Self {
        let half = secret.len() / 2;
        let hex: String = secret.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let list = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
        // Of base64, what does not hang on what follows.
        let whole = &secret[..secret.len() / 3 * 3];
        let forms = vec![
            secret[..half].to_vec(),
            secret[half..].to_vec(),
            hex[..half].into(),
            hex[..half].to_uppercase().into(),
            STANDARD.encode(whole).into(),
            URL_SAFE_NO_PAD.encode(whole).into(),
            list(&secret[..half]).into(),
            format!("{:#?}", &secret[..half]).split('\n').skip(1).take(half).collect::<Vec<_>>().join("\n").into(),
        ];
        Self { name: name.into(), forms }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window[0] == part[0] && window == part)
}

/// All needles, by the first two bytes of each form: one pass finds them.
struct Sieve<'a>(Vec<Vec<(&'a str, &'a [u8])>>);

impl<'a> Sieve<'a> {
    fn of(needles: &'a [Needle]) -> Self {
        let mut forms = vec![Vec::new(); 1 << 16];
        for needle in needles {
            for form in &needle.forms {
                forms[usize::from(form[0]) << 8 | usize::from(form[1])].push((&*needle.name, &**form));
            }
        }
        Self(forms)
    }

    fn found_in(&self, bytes: &[u8]) -> Option<&'a str> {
        (1..bytes.len()).find_map(|end| {
            let forms = &self.0[usize::from(bytes[end - 1]) << 8 | usize::from(bytes[end])];
            forms.iter().find(|(_, form)| bytes[end - 1..].starts_with(form)).map(|(name, _)| *name)
        })
    }
}

/// A folder with keystores, their backups and what goes from one to another; and what was said.
struct Scene {
    place: Place,
    needles: Vec<Needle>,
    said: String,
    steps: usize,
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.place.folder.path().join(name)
    }

    fn open(&self, name: &str, root: RootKey) -> LocalKms {
        LocalKms::open_with(self.path(name), root, KmsOptions::default().region(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn says(&mut self, what: &dyn Debug) {
        write!(self.said, "{what:?}\n{what:#?}\n").unwrap();
    }

    fn seeks(&mut self, name: impl Into<String>, secret: &[u8]) {
        self.needles.push(Needle::new(name, secret));
    }

    /// Looks for the root key of a keystore and what is derived from it, and for all key material in it.
    fn seeks_all_of(&mut self, kms: &LocalKms) {
        let secrets = block_on(kms.look(|store| {
            let keys = store.keys();
            let derived = [("root key", &keys.root), ("row key", &keys.rows.key), ("head key", &keys.head)];
            let mut secrets: Vec<_> = derived.map(|(name, key)| (name.to_owned(), *key.expose())).into();
            store.read(|tx| {
                for key in KeyRecord::all(tx)? {
                    for version in 1..=key.current_version {
                        if let Some(material) = key.material(tx, version)? {
                            secrets.push((format!("version {version}"), *material.secret.expose()));
                        }
                    }
                }
                Ok(secrets)
            })
        }));
        let file = kms.path().file_name().unwrap().to_string_lossy().into_owned();
        for (name, secret) in secrets.unwrap() {
            self.seeks(format!("{name} of {file}"), &secret);
        }
    }

    /// Looks at every file that is there now, and at all that was said.
    #[track_caller]
    fn after(&mut self, step: &str) {
        self.steps += 1;
        let sieve = Sieve::of(&self.needles);
        let mut found = false;
        for file in fs::read_dir(self.place.folder.path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            found |= contains(&bytes, CANARY.as_bytes());
            assert_eq!(sieve.found_in(&bytes), None, "{step}: in {}", path.display());
        }
        assert!(found, "{step}: the search finds nothing");
        assert_eq!(sieve.found_in(self.said.as_bytes()), None, "{step}: said");
    }

    /// The text of the root key in a file lies in that file alone.
    #[track_caller]
    fn root_key_is_only_in(&self, name: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let text = text.trim_end().strip_prefix("envelock-root1.").unwrap();
        for file in fs::read_dir(self.place.folder.path()).unwrap() {
            let path = file.unwrap().path();
            let is_in = contains(&fs::read(&path).unwrap(), &text.as_bytes()[24..]);
            assert_eq!(is_in, path.ends_with(name), "{}", path.display());
        }
        assert!(!self.said.contains(&text[24..]), "said");
    }
}

fn file(path: impl AsRef<Path>) -> RootKey {
    RootKey::file(path).unwrap()
}

fn random(kms: &LocalKms) -> Secret<32> {
    let drawn = block_on(kms.generate_random(32)).unwrap();
    Secret::init(|out| out.copy_from_slice(drawn.plaintext()))
}

#[test]
fn no_secret_lies_in_the_clear_in_any_file_or_is_said_at_any_step() {
    let mut scene = Scene { place: Place::new(), needles: Vec::new(), said: String::new(), steps: 0 };
    scene.seeks("plaintext", PLAINTEXT);
    scene.seeks("passphrase", PASSPHRASE);
    scene.seeks("passphrase of the material", IMPORT_PASSPHRASE);
    let root = RootKey::passphrase(PASSPHRASE).unwrap().with_cost(CHEAP).unwrap();
    scene.says(&root);
    let (eu, us) = (scene.open("eu-1", file(scene.path("root.key"))), scene.open("us-1", root));
    scene.says(&(&eu, KmsOptions::default(), file(scene.path("root.key"))));

    let local = block_on(eu.create_key(CreateKeyRequest::default().description(CANARY))).unwrap().key_id;
    for _ in 0..2 {
        block_on(eu.rotate(&local)).unwrap();
    }
    let data_key = block_on(eu.generate_data_key(&local, DataKeyLength::Bytes32, &context())).unwrap();
    scene.seeks("data key", data_key.plaintext.expose());
    scene.says(&data_key);
    let sealed = block_on(eu.encrypt(&local, PLAINTEXT, &context())).unwrap();
    let opened = block_on(eu.decrypt(&sealed.ciphertext_blob, &context())).unwrap();
    let drawn = block_on(eu.generate_random(64)).unwrap();
    scene.seeks("random bytes", drawn.plaintext());
    scene.says(&(&sealed, &opened, &drawn, eu.provider(&local).unwrap()));
    let wrong = block_on(eu.decrypt(&sealed.ciphertext_blob, &crate::context::EncryptionContext::new())).unwrap_err();
    scene.says(&wrong);
    scene.seeks_all_of(&eu);
    scene.seeks_all_of(&us);
    scene.after("keys made and used");
    scene.root_key_is_only_in("root.key");

    // Material that is imported in both forms.
    let request = CreateKeyRequest::default().external().multi_region();
    let imported = block_on(eu.create_key(request)).unwrap().key_id;
    let parameters = block_on(eu.get_parameters_for_import(&imported)).unwrap();
    let (first, second) = (random(&eu), random(&eu));
    for secret in [&first, &second] {
        scene.seeks("imported material", secret.expose());
    }
    let wrapped = wrap_key_material(&first, &parameters, &parameters.fingerprint()).unwrap();
    let text = seal_key_material(&second, IMPORT_PASSPHRASE, CHEAP).unwrap();
    scene.write("parameters", &parameters.to_file());
    scene.write("wrapped", &wrapped);
    scene.write("text", text.as_str().as_bytes());
    let requests = [
        ImportKeyMaterialRequest::wrapped(wrapped, parameters.import_token()),
        ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), IMPORT_PASSPHRASE).new_key_material(),
    ];
    scene.says(&(&parameters, &text, &requests, &first));
    scene.after("material on its way");
    for request in requests {
        let answer = block_on(eu.import_key_material(&imported, request)).unwrap();
        scene.says(&answer);
    }
    block_on(eu.rotate(&imported)).unwrap();
    let text = seal_key_material(&first, b"another passphrase", CHEAP).unwrap();
    let wrong = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), IMPORT_PASSPHRASE);
    let wrong = block_on(eu.import_key_material(&imported, wrong)).unwrap_err();
    scene.says(&wrong);
    scene.after("material imported");

    // To another keystore, and news of a rotation after that.
    let target = block_on(us.replication_parameters()).unwrap();
    let bundle = block_on(eu.replicate_key(&imported, &target.file, &target.fingerprint)).unwrap();
    block_on(us.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    let third = random(&eu);
    scene.seeks("imported material", third.expose());
    let text = seal_key_material(&third, IMPORT_PASSPHRASE, CHEAP).unwrap();
    let request = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), IMPORT_PASSPHRASE);
    block_on(eu.import_key_material(&imported, request.new_key_material())).unwrap();
    block_on(eu.rotate(&imported)).unwrap();
    let rotation = block_on(eu.export_rotation(&imported, &target.file, &target.fingerprint)).unwrap();
    block_on(us.import_rotation(&rotation.file)).unwrap();
    let change = block_on(eu.update_primary_region(&imported, "us-1")).unwrap();
    block_on(us.import_primary_change(&change.file)).unwrap();
    for (name, file) in [("bundle", &bundle.file), ("rotation", &rotation.file), ("change", &change.file)] {
        scene.write(name, file);
    }
    scene.write("replication-key", &target.file);
    scene.says(&(&target, &bundle, &rotation, &change));
    scene.seeks_all_of(&us);
    scene.after("replicated");

    // Other root keys: of each its own file, and of the old ones nothing.
    let exported = block_on(eu.export_root_key()).unwrap();
    scene.seeks("text of the root key", &exported.expose().as_bytes()["envelock-root1.".len() + 24..]);
    scene.says(&exported);
    block_on(eu.backup(scene.path("backup-1"))).unwrap();
    block_on(us.backup(scene.path("backup-2"))).unwrap();
    block_on(eu.rekey(file(scene.path("root.key")))).unwrap();
    scene.seeks_all_of(&eu);
    scene.after("backed up and rekeyed");
    scene.root_key_is_only_in("root.key");
    block_on(us.rekey(file(scene.path("us.key")))).unwrap();
    scene.seeks_all_of(&us);
    scene.after("both rekeyed");
    scene.root_key_is_only_in("us.key");

    // An older state takes the place of one that is moved aside.
    block_on(us.close()).unwrap();
    let root = RootKey::passphrase(PASSPHRASE).unwrap();
    let aside = RestoreOptions::default().move_existing_aside();
    let restored = LocalKms::restore(scene.path("backup-2"), scene.path("us-1"), root, aside).unwrap();
    scene.says(&restored);
    scene.after("restored");
    let us = scene.open("us-1", RootKey::passphrase(PASSPHRASE).unwrap());
    block_on(us.check()).unwrap();
    block_on(us.generate_data_key(&imported, DataKeyLength::Bytes32, &context())).unwrap();
    drop((eu, us));
    scene.after("closed");
    assert!(scene.steps >= 8 && scene.needles.len() > 30, "{} {}", scene.steps, scene.needles.len());
    // What is said is found indeed, in each of these forms.
    let needles = [Needle::new("it", first.expose())];
    let sieve = Sieve::of(&needles);
    let hex: String = needles[0].forms[2].iter().map(|it| char::from(*it)).collect();
    for said in [format!("{:?}", first.expose()), format!("{:#?}", first.expose()), hex] {
        assert_eq!(sieve.found_in(format!("before {said} after").as_bytes()), Some("it"), "{said}");
    }
}
