//! Key material that came from outside, and what the embedded KMS opened with it, while they are looked for: an open keystore
//! has neither in memory between two calls.

use super::keys::unmask;
use super::scenes::{Watch, make_passphrase, none};
use crate::support::child::{hear, tell};
use envelock::blocking::wait;
use envelock::kms::{GenerateDataKeyAnswer, ImportKeyMaterialRequest, seal_key_material, wrap_key_material};
use envelock::{CreateKeyRequest, DataKeyLength, KmsOptions, LocalKms, PassphraseCost, RootKey, Secret};
use zeroize::Zeroizing;

/// The parent's secret of this name, as often as it is needed.
struct Masked(String);

impl Masked {
    fn make<const N: usize>(watch: &Watch, name: &str) -> Self {
        tell(format!("make {name} {N}"));
        let masked = Self(hear());
        watch.learn(&format!("needle {name}"));
        masked
    }

    fn reveal<const N: usize>(&self) -> Secret<N> {
        let mut secret = None;
        unmask(&self.0, |write| secret = Some(Secret::init(|out| write(out))));
        secret.unwrap()
    }
}

pub(super) fn imported() {
    let watch = Watch::new();
    let folder = tempfile::tempdir().unwrap();
    let open = |region: &str| {
        let path = |ending: &str| folder.path().join(format!("{region}.{ending}"));
        let root = RootKey::file(path("key")).unwrap();
        LocalKms::open_with(path("db"), root, KmsOptions::default().region(region)).unwrap()
    };
    let (kms, other) = (open("eu-1"), open("us-1"));
    let request = CreateKeyRequest::default().external().multi_region();
    let key = wait(kms.create_key(request)).unwrap().key_id;
    let (material, next) = (Masked::make::<32>(&watch, "material"), Masked::make::<32>(&watch, "next-material"));
    let plaintext = Masked::make::<64>(&watch, "plaintext");
    watch.expect_nothing();

    // Under a public key.
    let parameters = wait(kms.get_parameters_for_import(&key)).unwrap();
    let secret = material.reveal::<32>();
    watch.expect(&["material"]);
    let wrapped = wrap_key_material(&secret, &parameters, &parameters.fingerprint()).unwrap();
    drop(secret);
    watch.expect_nothing();
    let request = ImportKeyMaterialRequest::wrapped(wrapped, parameters.import_token());
    wait(kms.import_key_material(&key, request)).unwrap();
    watch.expect_nothing();

    // Under a passphrase.
    let passphrase = Zeroizing::new(make_passphrase(&watch, "import-passphrase"));
    let cost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };
    let text = seal_key_material(&next.reveal::<32>(), &passphrase, cost).unwrap();
    let request = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), &passphrase);
    drop(passphrase);
    watch.expect(&["import-passphrase"]);
    wait(kms.import_key_material(&key, request.new_key_material())).unwrap();
    watch.expect_nothing();

    // It is used, by both versions.
    let secret = plaintext.reveal::<64>();
    let before = wait(kms.encrypt(&key, secret.expose(), &none())).unwrap().ciphertext_blob;
    wait(kms.rotate(&key)).unwrap();
    let after = wait(kms.re_encrypt(&before, &none(), &key)).unwrap().ciphertext_blob;
    drop(secret);
    watch.expect_nothing();
    for blob in [&before, &after] {
        let opened = wait(kms.decrypt(blob, &none())).unwrap();
        watch.expect(&["plaintext"]);
        drop(opened);
        watch.expect_nothing();
    }
    let GenerateDataKeyAnswer { plaintext, ciphertext_blob, .. } =
        wait(kms.generate_data_key(&key, DataKeyLength::Bytes32, &none())).unwrap();
    watch.data_key(&plaintext);
    drop(plaintext);
    watch.expect_nothing();
    drop(wait(kms.decrypt(&ciphertext_blob, &none())).unwrap());
    watch.expect_nothing();
    let envelope = watch.envelope_of(kms.provider(&key).unwrap(), envelock::AeadAlgorithm::Aes256Gcm);
    let message = envelope.encrypt(b"x", &none()).unwrap();
    envelope.decrypt(&message, &none()).unwrap();
    drop(envelope);
    watch.expect_nothing();

    // It goes to another keystore, under another root key and into a copy.
    let target = wait(other.replication_parameters()).unwrap();
    let bundle = wait(kms.replicate_key(&key, &target.file, &target.fingerprint)).unwrap();
    watch.expect_nothing();
    wait(other.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    drop(wait(other.decrypt(&after, &none())).unwrap());
    watch.expect_nothing();
    wait(kms.rekey(RootKey::file(folder.path().join("eu-1.key")).unwrap())).unwrap();
    wait(kms.backup(folder.path().join("backup.db"))).unwrap();
    watch.expect_nothing();
    for kms in [kms, other] {
        wait(kms.close()).unwrap();
    }
    watch.expect_nothing();
}
