//! Many data keys in one call: `batch_input`.
//!
//! A batch of which a member fails is 400, with an answer for each member. It is asked for no more than Transit takes in one
//! request, and a member that has the form of no ciphertext is not sent.

use super::answer::{self, Member};
use super::refusal::Purpose;
use super::slot::Ciphertext;
use super::wire::{Body, Field};
use super::{Derivation, Inner};
use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, EncryptedDataKey};
use crate::provider::DataKeyAnswer;
use std::sync::Arc;

/// A slot of the batch that is to be sent, and where it stands.
struct Asked<'a> {
    at: usize,
    ciphertext: Ciphertext<'a>,
    context: &'a KmsContext,
}

/// Strings of a JSON request, keys and values, that OpenBao takes unless it is told otherwise: 1,000
/// (`max_request_json_strings`, since 2.4.1). A few are left for what may be added.
const STRINGS_MAX: usize = 960;

impl Inner {
    /// The most members of a batch: each has two fields, or three.
    pub(super) fn batch_len(&self) -> usize {
        match self.derivation {
            Derivation::None => STRINGS_MAX / 4,
            Derivation::ByContext => STRINGS_MAX / 6,
        }
    }

    pub(super) async fn encrypt_many(
        self: &Arc<Self>,
        keys: &[(&DataKey, &KmsContext)],
    ) -> Vec<Result<Vec<EncryptedDataKey>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for part in keys.chunks(self.batch_len()) {
            match self.encrypt_part(part).await {
                Ok(members) => answers.extend(members),
                Err(error) => answers.extend(part.iter().map(|_| Err(error.again()))),
            }
        }
        answers
    }

    pub(super) async fn open_many(self: &Arc<Self>, slots: &[(&EncryptedDataKey, &KmsContext)]) -> Vec<DataKeyAnswer> {
        let mut answers = Vec::with_capacity(slots.len());
        let mut asked = Vec::new();
        for (at, (slot, context)) in slots.iter().enumerate() {
            answers.push(match Ciphertext::parse(slot.wrapped()) {
                _ if !self.is_mine(slot) => DataKeyAnswer::NotMine,
                None => DataKeyAnswer::Failed(self.server.asked(Purpose::Decrypt(None), &self.key_id).not_opened()),
                Some(ciphertext) => {
                    asked.push(Asked { at, ciphertext, context });
                    DataKeyAnswer::NotMine
                }
            });
        }
        for part in asked.chunks(self.batch_len()) {
            let opened = match self.open_part(part).await {
                Ok(opened) => opened,
                Err(error) => part.iter().map(|_| Err(error.again())).collect(),
            };
            for (asked, opened) in part.iter().zip(opened) {
                if let Some(answer) = answers.get_mut(asked.at) {
                    *answer = opened.map_or_else(DataKeyAnswer::Failed, DataKeyAnswer::Key);
                }
            }
        }
        answers
    }

    async fn encrypt_part(
        self: &Arc<Self>,
        part: &[(&DataKey, &KmsContext)],
    ) -> Result<Vec<Result<Vec<EncryptedDataKey>>>> {
        if part.is_empty() {
            return Ok(Vec::new());
        }
        self.prove_before_encrypting().await?;
        let items: Vec<_> = part
            .iter()
            .map(|(key, context)| {
                let mut fields = vec![("plaintext", Field::Base64(key.expose()))];
                self.bind(&mut fields, context, context.encoded());
                fields
            })
            .collect();
        let read = |answer: &[u8]| answer::encrypted_batch(answer, part.len());
        let call = self.encryption(Body::array("batch_input", &items)?).partial();
        let members = self.news.noted(self.server.call(&call.reading(&read)).await)?;
        let judged = |member: Member<String>| match member {
            Ok(text) => Ok(vec![self.slot(text)]),
            Err(said) => self.news.noted(Err(self.server.asked(Purpose::Encrypt, &self.key_id).bad_request(&said))),
        };
        Ok(members.into_iter().map(judged).collect())
    }

    async fn open_part(self: &Arc<Self>, part: &[Asked<'_>]) -> Result<Vec<Result<DataKey>>> {
        let items: Vec<_> = part
            .iter()
            .map(|asked| {
                let mut fields = vec![("ciphertext", Field::Text(asked.ciphertext.text))];
                self.bind(&mut fields, asked.context, asked.context.encoded());
                fields
            })
            .collect();
        let read = |answer: &[u8]| answer::decrypted_batch(answer, part.len());
        let call = self.decryption(Body::array("batch_input", &items)?, None).partial();
        let members = self.news.noted(self.server.call(&call.reading(&read)).await)?;
        let judged = |(asked, member): (&Asked<'_>, Member<DataKey>)| {
            self.news.noted(member.map_err(|said| {
                let purpose = Purpose::Decrypt(Some(asked.ciphertext.version));
                self.server.asked(purpose, &self.key_id).bad_request(&said)
            }))
        };
        let opened: Vec<Result<DataKey, Error>> = part.iter().zip(members).map(judged).collect();
        // Any that opened serves as a probe.
        if let Some((asked, _)) = part.iter().zip(&opened).find(|(_, opened)| opened.is_ok()) {
            self.prove_after_decrypting(asked.ciphertext, asked.context).await?;
        }
        Ok(opened)
    }
}
