//! Bodies of requests: JSON that may hold secrets, in one piece of memory that is wiped.

use crate::error::{Error, Result};
use crate::provider::http::body::wiped;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::ops::Range;
use zeroize::Zeroizing;

/// A value of a JSON object.
pub(super) enum Field<'a> {
    Text(&'a str),
    /// Text that no error may repeat, though it shows what the server says.
    Secret(&'a str),
    /// Bytes, as standard base64 with padding.
    Base64(&'a [u8]),
}

/// A body to send. Clones share its memory, which is wiped with the last of them.
#[derive(Clone, Default)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// The parts that are secret.
    pub(super) secrets: Vec<Bytes>,
}

impl Body {
    /// A JSON object of these fields.
    pub(super) fn object(fields: &[(&str, Field<'_>)]) -> Result<Self> {
        let mut json = Json::with_room(room(fields));
        json.object(fields)?;
        Ok(json.finish())
    }

    /// `{"NAME": [...]}` of objects.
    pub(super) fn array(name: &str, items: &[Vec<(&str, Field<'_>)>]) -> Result<Self> {
        let mut json = Json::with_room(items.iter().map(|item| room(item) + 1).sum::<usize>() + name.len() + 16);
        json.raw("{\"");
        json.raw(name);
        json.raw("\":[");
        for (at, item) in items.iter().enumerate() {
            json.raw(if at == 0 { "" } else { "," });
            json.object(item)?;
        }
        json.raw("]}");
        Ok(json.finish())
    }
}

struct Json {
    text: Zeroizing<Vec<u8>>,
    secrets: Vec<Range<usize>>,
}

impl Json {
    /// All the room at once, so that no growing buffer leaves copies behind.
    fn with_room(room: usize) -> Self {
        Self { text: Zeroizing::new(Vec::with_capacity(room)), secrets: Vec::new() }
    }

    fn raw(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn object(&mut self, fields: &[(&str, Field<'_>)]) -> Result<()> {
        self.raw("{");
        for (at, (name, field)) in fields.iter().enumerate() {
            self.raw(if at == 0 { "\"" } else { ",\"" });
            self.raw(name);
            self.raw("\":");
            self.value(field)?;
        }
        self.raw("}");
        Ok(())
    }

    fn value(&mut self, field: &Field<'_>) -> Result<()> {
        let start = self.text.len();
        match field {
            Field::Text(text) | Field::Secret(text) => {
                serde_json::to_writer(&mut *self.text, text).map_err(|_| Error::internal("a text is always JSON"))?
            }
            Field::Base64(bytes) => {
                self.raw("\"");
                let (from, len) = (self.text.len(), encoded_len(bytes));
                self.text.resize(from + len, 0);
                let written = STANDARD.encode_slice(bytes, &mut self.text[from..]);
                if written != Ok(len) {
                    return Err(Error::internal("base64 is four thirds of its bytes"));
                }
                self.raw("\"");
            }
        }
        if matches!(field, Field::Secret(_)) {
            // Without the quotes.
            self.secrets.push(start + 1..self.text.len() - 1);
        }
        Ok(())
    }

    fn finish(self) -> Body {
        let bytes = wiped(self.text);
        let secrets = self.secrets.into_iter().map(|range| bytes.slice(range)).collect();
        Body { bytes, secrets }
    }
}

fn encoded_len(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
}

/// The most bytes that an object of these fields takes: JSON writes a control character as six.
fn room(fields: &[(&str, Field<'_>)]) -> usize {
    let value = |field: &Field<'_>| match field {
        Field::Text(text) | Field::Secret(text) => 6 * text.len(),
        Field::Base64(bytes) => encoded_len(bytes),
    };
    fields.iter().map(|(name, field)| name.len() + value(field) + 6).sum::<usize>() + 2
}

/// What a body from the server is kept in: wiped when it was read, where nobody else holds it.
pub(super) struct Received(Option<Bytes>);

impl Received {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Some(bytes))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(Ok(mut bytes)) = self.0.take().map(Bytes::try_into_mut) {
            zeroize::Zeroize::zeroize(bytes.as_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_json_and_knows_its_secrets() {
        let body = Body::object(&[
            ("plaintext", Field::Base64(&[0xFB; 4])),
            ("role", Field::Text("a\"b\u{1}")),
            ("jwt", Field::Secret("x\ny")),
        ])
        .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
        assert_eq!(json["plaintext"], "+/v7+w==");
        assert_eq!(json["role"], "a\"b\u{1}");
        assert_eq!(json["jwt"], "x\ny");
        assert_eq!(body.secrets, [Bytes::from("x\\ny")]);
    }

    #[test]
    fn no_body_outgrows_the_room_that_was_made_for_it() {
        let all: String = (0..=127_u8).map(char::from).collect();
        let fields = [("name", Field::Text(&all)), ("other", Field::Base64(all.as_bytes()))];
        let mut json = Json::with_room(room(&fields));
        let before = json.text.capacity();
        json.object(&fields).unwrap();
        assert!(json.text.len() <= room(&fields));
        assert_eq!(json.text.capacity(), before);
        let items = [vec![("a", Field::Text("b"))], vec![("c", Field::Base64(b"d"))]];
        assert_eq!(
            &Body::array("batch_input", &items).unwrap().bytes[..],
            br#"{"batch_input":[{"a":"b"},{"c":"ZA=="}]}"#
        );
    }
}
