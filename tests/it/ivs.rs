//! Messages under one data key, as a cache makes them: what must differ between them, and within each.

use crate::cases::{plaintext, say};
use envelock::blocking::wait;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, GeneratedDataKey, Header,
    KeyProvider, KmsContext, Recipient, Result, async_trait,
};
use std::collections::HashSet;
use std::io::Write;

/// Gives the same data key for every message, as no provider does and a cache may.
#[derive(Debug)]
struct OneDataKey;

impl OneDataKey {
    fn key() -> DataKey {
        DataKey::from_slice(&[0x42; 32]).unwrap()
    }
}

#[async_trait]
impl KeyProvider for OneDataKey {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new("test.one-data-key", Vec::new())]
    }

    async fn generate_data_key(&self, _: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let encrypted = self.encrypt_data_key(&Self::key(), context).await?;
        Ok(GeneratedDataKey { key: Self::key(), encrypted })
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Ok(vec![EncryptedDataKey::new("test.one-data-key", Vec::new(), b"the one".to_vec())])
    }

    async fn decrypt_data_key(&self, _: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        DataKeyAnswer::Key(Self::key())
    }
}

fn messages(count: usize, len: usize) -> Vec<Vec<u8>> {
    let envelope = Envelope::builder(OneDataKey).segment_len(64).build().unwrap();
    let (context, plaintext) = (EncryptionContext::new(), plaintext(len));
    let write = |at: usize| {
        if at.is_multiple_of(2) {
            return wait(envelope.encrypt(&plaintext, &context)).unwrap();
        }
        let mut writer = wait(envelope.encrypt_writer(Vec::new(), &context)).unwrap();
        plaintext.chunks(at).for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap()
    };
    let messages: Vec<_> = (0..count).map(write).collect();
    for message in &messages {
        assert_eq!(wait(envelope.decrypt(message, &context)).unwrap(), plaintext);
    }
    messages
}

#[test]
fn no_segment_iv_and_no_message_iv_comes_twice_under_one_data_key() {
    let messages = messages(100, 100 * 32 + 5);
    let (mut message_ivs, mut tags, mut segment_ivs) = (HashSet::new(), HashSet::new(), HashSet::new());
    for message in &messages {
        let head = Header::parse(message).unwrap().len();
        message_ivs.insert(message[head - 64..head - 32].to_vec());
        tags.insert(message[head - 32..head].to_vec());
        segment_ivs.extend(message[head..].chunks(64).map(|segment| segment[4..16].to_vec()));
    }
    assert_eq!([message_ivs.len(), tags.len()], [messages.len(); 2]);
    assert_eq!(segment_ivs.len(), messages.len() * 101);
    say(format_args!(
        "{} messages under one data key: {} segment IVs, all different",
        messages.len(),
        segment_ivs.len()
    ));
}

/// The same plaintext at the same place under the same data key: with message keys of their own, no
/// piece of ciphertext can repeat, and no segment opens in the other message.
#[test]
fn two_messages_under_one_data_key_have_keys_of_their_own() {
    let messages = messages(2, 3 * 32);
    let (one, other) = (&messages[0], &messages[1]);
    let head = Header::parse(one).unwrap();
    let start = head.len();
    assert_eq!(one[..start - 64], other[..start - 64], "but for IV and tag, the heads are the same");
    assert_ne!(one[start + 16..], other[start + 16..]);
    let envelope = Envelope::builder(OneDataKey).segment_len(64).build().unwrap();
    let swapped = [&one[..start], &other[start..start + 64], &one[start + 64..]].concat();
    let error = wait(envelope.decrypt(&swapped, &EncryptionContext::new())).unwrap_err();
    assert_eq!((error.kind(), error.segment()), (envelock::ErrorKind::AuthenticationFailed, Some(0)));
    let other_head = [&other[..start], &one[start..]].concat();
    let error = wait(envelope.decrypt(&other_head, &EncryptionContext::new())).unwrap_err();
    assert_eq!((error.kind(), error.segment()), (envelock::ErrorKind::AuthenticationFailed, Some(0)));
}
