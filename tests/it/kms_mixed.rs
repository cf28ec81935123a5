//! The load of a process that is to be killed: what programs and operators do to a keystore, mixed, for ever. Its lines
//! are those of `kms_reports`.

use crate::kms_helper::{open, wait};
use crate::support::hex;
use crate::support::random::Random;
use envelock::kms::{
    CreateGrantRequest, DeletionWindow, GrantOperation, ImportKeyMaterialRequest, KeyPolicy, Tag, seal_key_material,
};
use envelock::{CreateKeyRequest, EncryptionContext, Error, LocalKms, PassphraseCost, Secret};
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Opens the keystore and uses it until it is killed. Each call is announced before it begins, and reported once it is
/// acknowledged.
pub(crate) fn work(folder: &Path) {
    say("BEGIN");
    let kms = open(folder).unwrap();
    say(&format!("OPENED {}", kms.keystore_id()));
    // Of a thousand processes, two may have the same id.
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let id = u128::from(std::process::id());
    let mut random = Random::new(u64::try_from((begun ^ (id << 40)) & u128::from(u64::MAX)).unwrap());
    for round in 0.. {
        let name = format!("{id}-{begun}-{round}");
        let mut key = Key::make(&kms, name, random.one_in(2));
        for step in 0..8 {
            key.aloud = random.one_in(2);
            key.step(random.below(9), step);
        }
    }
}

/// In one call, so that a kill leaves whole lines, after an empty one, whatever the test harness has written.
fn say(lines: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{lines}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A key that only this process uses.
struct Key<'a> {
    kms: &'a LocalKms,
    key: String,
    alias: String,
    name: String,
    context: EncryptionContext,
    /// Whether calls are made by the keystore's thread, or by this one.
    aloud: bool,
}

impl<'a> Key<'a> {
    fn make(kms: &'a LocalKms, name: String, aloud: bool) -> Self {
        let context = EncryptionContext::from([("tenant", "acme")]);
        let mut made = Self { kms, key: String::new(), alias: format!("alias/{name}"), name, context, aloud };
        made.key = made.another(Some(&made.alias));
        made
    }

    fn another(&self, alias: Option<&str>) -> String {
        let request = alias.into_iter().fold(CreateKeyRequest::default(), CreateKeyRequest::alias);
        say("BEGIN");
        let key = self.run(self.kms.create_key(request)).key_id;
        let also = alias.map(|alias| format!("\nALIAS {alias} {key}")).unwrap_or_default();
        say(&format!("CALLED CreateKey {key}\nKEY {key} 1{also}"));
        key
    }

    fn step(&self, which: usize, number: u32) {
        let Self { kms, key, alias, name, context, .. } = self;
        match which {
            0 => {
                let version = self.run(kms.rotate(key)).current_version;
                say(&format!("CALLED RotateKeyOnDemand {key}\nKEY {key} {version}"));
            }
            1 => {
                // What is encrypted, decrypted and encrypted again leaves nothing but a record.
                let blob = self.run(kms.encrypt(key, key.as_bytes(), context)).ciphertext_blob;
                say(&format!("CALLED Encrypt {key}\nBLOB {key} {}", hex(&blob)));
                self.run(kms.decrypt(&blob, context));
                say(&format!("CALLED Decrypt {key}"));
                let blob = self.run(kms.re_encrypt(&blob, context, key)).ciphertext_blob;
                say(&format!("CALLED ReEncrypt {key}\nBLOB {key} {}", hex(&blob)));
            }
            2 => {
                let other = self.another(None);
                for target in [&other, key] {
                    self.change(
                        "UpdateAlias",
                        target,
                        &format!("ALIAS {alias} {target}"),
                        kms.update_alias(alias, target),
                    );
                }
            }
            3 => {
                let tag = Tag::new("team", number.to_string());
                self.change("TagResource", key, &format!("TAG {key} {number}"), kms.tag_resource(key, [tag]));
                self.change("UntagResource", key, &format!("TAG {key} none"), kms.untag_resource(key, ["team"]));
            }
            4 => {
                let policy = format!(
                    r#"{{"Statement":[{{"Sid":"{number}","Effect":"Allow","Principal":{{"AWS":"owner"}},"Action":"kms:*","Resource":"*"}}]}}"#
                );
                let policy = KeyPolicy::parse(&policy).unwrap();
                let line = format!("POLICY {key} {number}");
                self.change("PutKeyPolicy", key, &line, kms.put_key_policy(key, &policy));
            }
            5 => {
                let grant = format!("{name}-{number}");
                let request = CreateGrantRequest::new("worker", [GrantOperation::Decrypt]).name(&grant);
                let line = format!("GRANT {key} {grant}");
                let id =
                    self.change("CreateGrant", key, &format!("{line} live"), kms.create_grant(key, &request)).grant_id;
                self.change("RevokeGrant", key, &format!("{line} gone"), kms.revoke_grant(key, &id));
            }
            6 => {
                self.change("DisableKey", key, &format!("STATE {key} Disabled"), kms.disable_key(key));
                self.enable();
            }
            7 => {
                say("BEGIN");
                let own = self.run(kms.create_key(CreateKeyRequest::default().external())).key_id;
                say(&format!("CALLED CreateKey {own}\nKEY {own} 0"));
                let cost = PassphraseCost { memory_kib: 19_456, passes: 2, lanes: 1 };
                let text = seal_key_material(&Secret::init(|out| out.fill(7)), b"a passphrase", cost).unwrap();
                let request = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"a passphrase");
                let import = kms.import_key_material(&own, request);
                self.change("ImportKeyMaterial", &own, &format!("STATE {own} Enabled"), import);
                say(&format!("KEY {own} 1"));
            }
            _ => {
                let schedule = kms.schedule_key_deletion(key, DeletionWindow::default());
                self.change("ScheduleKeyDeletion", key, &format!("STATE {key} PendingDeletion"), schedule);
                let cancel = kms.cancel_key_deletion(key);
                self.change("CancelKeyDeletion", key, &format!("STATE {key} Disabled"), cancel);
                self.enable();
            }
        }
    }

    fn enable(&self) {
        let key = &self.key;
        self.change("EnableKey", key, &format!("STATE {key} Enabled"), self.kms.enable_key(key));
    }

    /// What gives something the value at the end of `line`.
    fn change<T>(&self, event: &str, key: &str, line: &str, call: impl Future<Output = Result<T, Error>>) -> T {
        say(&format!("DOING {line}"));
        let answer = self.run(call);
        say(&format!("CALLED {event} {key}\n{line}"));
        answer
    }

    fn run<T>(&self, call: impl Future<Output = Result<T, Error>>) -> T {
        if self.aloud { pollster::block_on(call).unwrap() } else { wait(call).unwrap() }
    }
}
