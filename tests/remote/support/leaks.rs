//! Secrets that are planted where they could come out, and the look for them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::error::Error;
use std::fmt::Debug;

/// What must not be seen anywhere, in each form that it could take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planted {
    needles: Vec<(String, Vec<u8>)>,
}

impl Planted {
    /// A secret that is text: a token, a secret access key.
    pub(crate) fn text(mut self, name: &str, secret: &str) -> Self {
        self.add(name, secret.as_bytes());
        self.add(&format!("{name}, in base64"), STANDARD_NO_PAD.encode(secret).as_bytes());
        self
    }

    /// A secret that is bytes: a data key, also as what prints bytes would print.
    pub(crate) fn bytes(mut self, name: &str, secret: &[u8]) -> Self {
        self.add(name, secret);
        self.add(&format!("{name}, in base64"), STANDARD.encode(secret).as_bytes());
        self.add(&format!("{name}, in base64url"), URL_SAFE_NO_PAD.encode(secret).as_bytes());
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(&format!("{name}, in hex"), hex.as_bytes());
        self.add(&format!("{name}, in upper-case hex"), hex.to_uppercase().as_bytes());
        let debug = format!("{secret:?}");
        self.add(&format!("{name}, as a list"), debug.trim_matches(['[', ']']).as_bytes());
        self
    }

    fn add(&mut self, name: &str, needle: &[u8]) {
        assert!(needle.len() >= 8, "too short to be told from anything else: {name}");
        self.needles.push((name.to_owned(), needle.to_vec()));
    }

    /// The names of those that are in `text`.
    pub(crate) fn found_in(&self, text: &[u8]) -> Vec<&str> {
        let found = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
        self.needles.iter().filter(|(_, needle)| found(needle)).map(|(name, _)| name.as_str()).collect()
    }

    /// Fails if any is in `text`, without showing it.
    #[track_caller]
    pub(crate) fn assert_not_in(&self, text: impl AsRef<[u8]>, what: impl Debug) {
        let found = self.found_in(text.as_ref());
        assert!(found.is_empty(), "{what:?} shows: {found:?}");
    }

    /// Fails if any is in an error, its causes, or what `Debug` shows of them.
    #[track_caller]
    pub(crate) fn assert_not_in_error(&self, error: &(dyn Error + 'static), what: impl Debug) {
        self.assert_not_in(texts(error), what);
    }
}

/// All that an error and its causes show, in every way of showing.
pub(crate) fn texts(error: &(dyn Error + 'static)) -> String {
    let mut all = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        all += &format!("{error}\n{error:#}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    all
}

#[test]
fn a_planted_secret_is_found_in_each_of_its_forms() {
    let key: Vec<u8> = (100..132).collect();
    let planted = Planted::default().bytes("key", &key).text("token", "s.thisIsTheToken");
    for text in [
        format!("x{:?}", key),
        format!("key={}", STANDARD.encode(&key)),
        "64656667".to_owned() + &key[4..].iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "Vault-Token: s.thisIsTheToken\r\n".to_owned(),
    ] {
        assert_eq!(planted.found_in(text.as_bytes()).len(), 1, "{text}");
    }
    assert!(planted.found_in(b"s.thisIsTheTok key").is_empty());
    let inner = std::io::Error::other("s.thisIsTheToken");
    let outer = std::io::Error::other(inner);
    assert_eq!(planted.found_in(texts(&outer).as_bytes()), ["token"]);
}
