//! Small messages: under a data key at hand, and with a raw key's wrap on top.

use crate::common::report::Report;
use crate::common::subject::Subject;
use crate::common::{Amount, Group, touched};
use crate::rivals::age::Age;
use crate::rivals::aws::Aws;
use crate::rivals::floe::Floe;
use crate::rivals::tink::TinkAead;
use envelock::{
    AeadAlgorithm, DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, Error, GeneratedDataKey, KeyProvider,
    KmsContext, Recipient, async_trait,
};
use std::time::Duration;

const ROUNDS: usize = 31;
const REPEAT: usize = 300;
/// How often the slow one runs in a row.
const AWS_REPEAT: usize = 10;

pub const FLOE: &str = "fast-floe";
pub const AT_HAND: &str = "envelock, data key at hand";
pub const WRAPPED: &str = "envelock, fresh data key under a raw key";
pub const AGE: &str = "age, to an X25519 key";
pub const TINK: &str = "tink-rs, AES-256-GCM";
pub const AWS: &str = "aws-esdk, fresh data key under a raw key";

/// Groups `small-LENGTH-encrypt` and `-decrypt` of 100 B and 1 KiB.
pub fn measure(report: &mut Report) {
    let ids = [100, 1024].map(|len| [format!("small-{len}-encrypt"), format!("small-{len}-decrypt")]);
    if !ids.as_flattened().iter().any(|id| report.wants(id)) {
        return;
    }
    let segment_len = 64 << 10;
    let (floe, age, tink) = (Floe::new(segment_len), Age::new(), TinkAead::new());
    // Why it is not there, if it is not, the large plaintexts' measurement says.
    let aws = Aws::start(4096).ok();
    let at_hand = Subject::under(AtHand([7; 32]), AeadAlgorithm::Aes256Gcm, segment_len);
    let wrapped = Subject::new(AeadAlgorithm::Aes256Gcm, segment_len);
    for (len, [encrypt, decrypt]) in [100, 1024].into_iter().zip(ids) {
        let plain = touched(len);
        let plain = &plain[..];
        if report.wants(&encrypt) {
            let mut group = Group::new(encrypt, format!("encrypt {len} B"), Amount::Message, REPEAT)
                .case(FLOE, || floe.encrypt(plain))
                .case(AT_HAND, || at_hand.encrypt(plain))
                .case(WRAPPED, || wrapped.encrypt(plain))
                .case(TINK, || tink.encrypt(plain))
                .case(AGE, || age.encrypt(plain, &mut [0; 2048]));
            if let Some(aws) = &aws {
                group = group.self_timed(1, AWS, |_| average(|| aws.encrypt(Aws::blob(plain)).0));
            }
            report.add(&group.run(ROUNDS), &[FLOE]);
        }
        if report.wants(&decrypt) {
            let mut buffer = [0; 2048];
            let of_age = age.encrypt(plain, &mut buffer);
            let of_age = &buffer[..of_age];
            let (of_floe, of_tink) = (floe.encrypt(plain), tink.encrypt(plain));
            let (of_at_hand, of_wrapped) = (at_hand.encrypt(plain), wrapped.encrypt(plain));
            let opened = [
                floe.decrypt(&of_floe),
                at_hand.decrypt(&of_at_hand),
                wrapped.decrypt(&of_wrapped),
                tink.decrypt(&of_tink),
            ];
            assert!(opened.iter().all(|opened| opened == plain), "what is measured must be a decryption");
            let of_aws = aws.as_ref().map(|aws| (aws, aws.encrypt(Aws::blob(plain)).1));
            let mut group = Group::new(decrypt, format!("decrypt {len} B"), Amount::Message, REPEAT)
                .case(FLOE, || floe.decrypt(&of_floe))
                .case(AT_HAND, || at_hand.decrypt(&of_at_hand))
                .case(WRAPPED, || wrapped.decrypt(&of_wrapped))
                .case(TINK, || tink.decrypt(&of_tink))
                .case(AGE, || age.decrypt(of_age, &mut vec![0; len]));
            if let Some((aws, sealed)) = &of_aws {
                group = group.self_timed(1, AWS, |_| average(|| aws.decrypt(sealed.clone()).0));
            }
            report.add(&group.run(ROUNDS), &[FLOE]);
        }
    }
}

pub fn average(mut work: impl FnMut() -> Duration) -> Duration {
    (0..AWS_REPEAT).map(|_| work()).sum::<Duration>() / AWS_REPEAT as u32
}

/// Stands for a cache that has the data key: answers at once, with a copy of it, whatever is asked.
#[derive(Debug)]
struct AtHand([u8; 32]);

const PROVIDER: &str = "com.example.at-hand";

impl AtHand {
    fn key(&self) -> Result<DataKey, Error> {
        DataKey::from_slice(&self.0)
    }

    fn slot() -> EncryptedDataKey {
        EncryptedDataKey::new(PROVIDER, "bench", [7; 60])
    }
}

#[async_trait]
impl KeyProvider for AtHand {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new(PROVIDER, "bench")]
    }

    async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey, Error> {
        Ok(GeneratedDataKey { key: self.key()?, encrypted: vec![Self::slot()] })
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>, Error> {
        Ok(vec![Self::slot()])
    }

    async fn decrypt_data_key(&self, _: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        self.key().map_or_else(DataKeyAnswer::Failed, DataKeyAnswer::Key)
    }
}
