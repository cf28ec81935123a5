//! What is told to the crates `tracing` and `log` at their finest, by all threads, while an embedded keystore and a cache
//! on it do everything: no secret. In a process of its own, since each process has one listener.

use crate::support::child::{Running, tell, words};
use crate::support::hex;
use envelock::blocking::wait;
use envelock::kms::{ImportKeyMaterialRequest, RestoreOptions, seal_key_material, wrap_key_material};
use envelock::{
    CacheLimits, CreateKeyRequest, DataKeyCache, DataKeyLength, EncryptionContext, Envelope, KmsOptions, LocalKms,
    PassphraseCost, RootKey, Secret,
};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps all that is said.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<String>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0, "{}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Fields(&mut self.0.lock().unwrap()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = self.0.lock().unwrap();
        writeln!(said, "{} {}", event.metadata().level(), event.metadata().target()).unwrap();
        event.record(&mut Fields(&mut said));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for Ear {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(self.0.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// What is looked for: as bytes, as text, and as what `Debug` makes of it.
#[derive(Default)]
struct Secrets(Vec<(&'static str, Vec<String>)>);

impl Secrets {
    fn seek(&mut self, name: &'static str, secret: &[u8]) {
        let half = &secret[..secret.len() / 2];
        let list = format!("{half:?}").trim_matches(['[', ']']).to_owned();
        let forms = vec![list, hex(half), hex(half).to_uppercase(), String::from_utf8_lossy(half).into_owned()];
        self.0.push((name, forms));
    }

    fn said_in<'a>(&'a self, said: &str) -> Vec<&'a str> {
        self.0.iter().filter(|(_, forms)| forms.iter().any(|form| said.contains(form))).map(|it| it.0).collect()
    }
}

const PASSPHRASE: &[u8] = b"of the material, and known to nobody else";
const ROOT_PASSPHRASE: &[u8] = b"of a root key, and known to nobody else";
const PLAINTEXT: &[u8] = b"the plaintext that is to be kept secret";

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn do_everything(secrets: &mut Secrets) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let cost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };
    secrets.seek("passphrase of the material", PASSPHRASE);
    secrets.seek("passphrase of the root key", ROOT_PASSPHRASE);
    secrets.seek("plaintext", PLAINTEXT);
    let root = RootKey::passphrase(ROOT_PASSPHRASE).unwrap().with_cost(cost).unwrap();
    let kms = LocalKms::open_with(path("eu.db"), root, KmsOptions::default().region("eu-1")).unwrap();
    let root = RootKey::file(path("us.key")).unwrap();
    let other = LocalKms::open_with(path("us.db"), root, KmsOptions::default().region("us-1")).unwrap();
    let key = wait(kms.create_key(CreateKeyRequest::default().external().multi_region())).unwrap().key_id;
    let parameters = wait(kms.get_parameters_for_import(&key)).unwrap();
    let random = || {
        let drawn = wait(kms.generate_random(32)).unwrap();
        Secret::<32>::init(|out| out.copy_from_slice(drawn.plaintext()))
    };
    let (first, second) = (random(), random());
    secrets.seek("material", first.expose());
    secrets.seek("next material", second.expose());
    let wrapped = wrap_key_material(&first, &parameters, &parameters.fingerprint()).unwrap();
    let text = seal_key_material(&second, PASSPHRASE, cost).unwrap();
    let wrong = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"another");
    wait(kms.import_key_material(&key, wrong)).unwrap_err();
    let import = |request| wait(kms.import_key_material(&key, request)).unwrap();
    import(ImportKeyMaterialRequest::wrapped(wrapped, parameters.import_token()));
    import(ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), PASSPHRASE).new_key_material());
    wait(kms.rotate(&key)).unwrap();

    let blob = wait(kms.encrypt(&key, PLAINTEXT, &context())).unwrap().ciphertext_blob;
    assert_eq!(wait(kms.decrypt(&blob, &context())).unwrap().plaintext(), PLAINTEXT);
    wait(kms.decrypt(&blob, &EncryptionContext::new())).unwrap_err();
    let data_key = wait(kms.generate_data_key(&key, DataKeyLength::Bytes32, &context())).unwrap();
    secrets.seek("data key", data_key.plaintext.expose());
    // The caches have events of their own, also of failures.
    let cache = DataKeyCache::new(CacheLimits::default()).unwrap();
    let envelope = Envelope::builder(kms.provider(&key).unwrap()).shared_cache(&cache).build().unwrap();
    let message = wait(envelope.encrypt(PLAINTEXT, &context())).unwrap();
    assert_eq!(wait(envelope.decrypt(&message, &context())).unwrap(), PLAINTEXT);
    wait(kms.disable_key(&key)).unwrap();
    wait(envelope.decrypt(&message, &context())).unwrap_err();
    wait(kms.enable_key(&key)).unwrap();

    let target = wait(other.replication_parameters()).unwrap();
    let bundle = wait(kms.replicate_key(&key, &target.file, &target.fingerprint)).unwrap();
    wait(other.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    for kms in [&kms, &other] {
        let exported = wait(kms.export_root_key()).unwrap();
        secrets.seek("root key", &exported.expose().as_bytes()["envelock-root1.".len() + 24..]);
    }
    wait(kms.backup(path("backup.db"))).unwrap();
    wait(kms.rekey(RootKey::file(path("eu.key")).unwrap())).unwrap();
    let text = std::fs::read_to_string(path("eu.key")).unwrap();
    secrets.seek("new root key", &text.trim_end().as_bytes()["envelock-root1.".len() + 24..]);
    wait(kms.close()).unwrap();
    let root = RootKey::passphrase(ROOT_PASSPHRASE).unwrap();
    LocalKms::restore(path("backup.db"), path("eu.db"), root, RestoreOptions::default().move_existing_aside()).unwrap();
    let wrong = RootKey::passphrase("another").unwrap();
    LocalKms::open(path("eu.db"), wrong).unwrap_err();
    wait(other.close()).unwrap();
}

#[test]
fn nobody_who_listens_to_everything_hears_a_secret() {
    if words().is_none() {
        let told = Running::start("kms_traced::nobody_who_listens_to_everything_hears_a_secret", &["listen"]).succeed();
        assert!(told.iter().any(|line| line == "heard no secret"), "{told:?}");
        return;
    }
    let ear = Ear::default();
    tracing::subscriber::set_global_default(ear.clone()).unwrap();
    log::set_boxed_logger(Box::new(ear.clone())).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut secrets = Secrets::default();
    do_everything(&mut secrets);
    let said = ear.0.lock().unwrap().clone();
    assert!(said.contains("envelock::cache"), "nothing is heard: {said}");
    assert_eq!(secrets.said_in(&said), Vec::<&str>::new());
    tracing::trace!(secret = ?PLAINTEXT, "this is heard");
    let said = ear.0.lock().unwrap().clone();
    assert_eq!(secrets.said_in(&said), ["plaintext"], "what is said is found");
    tell("heard no secret");
}
