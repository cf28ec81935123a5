//! The messages of docs/format.md's worked examples, opened through the public interface with the
//! keys that the page gives. (What is inside them is made again by the unit tests of `native::floe`.)

use crate::cases::{
    Outcome, detached, envelope, hex, plain_context, ranged, say, seeking, streamed, text, unhex, whole,
};
use serde_json::{Map, Value, json};

/// The `input` lines of each block that shows a message, by name, in hexadecimal; and the message.
fn messages() -> Vec<(Map<String, Value>, Vec<u8>)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    let blocks = page.split("\n```elk-example ").skip(1).map(|block| block.split_once("\n```").unwrap().0);
    let mut messages = Vec::new();
    for block in blocks.filter(|block| block.lines().next().unwrap().ends_with(" shows=message")) {
        let (mut inputs, mut message) = (Map::new(), Vec::new());
        for line in block.lines().skip(1) {
            let (name, value) = line.split('#').next().unwrap().split_once('=').unwrap();
            match name.trim().split_once(' ').unwrap() {
                ("input", name) => drop(inputs.insert(name.to_owned(), value.trim().into())),
                ("bytes", _) => message.extend(unhex(value.trim())),
                _ => {}
            }
        }
        messages.push((inputs, message));
    }
    messages
}

fn utf8(digits: &Value) -> String {
    String::from_utf8(unhex(digits.as_str().unwrap())).unwrap()
}

/// The readers that an example's inputs name, and the context.
fn case(inputs: &Map<String, Value>) -> Value {
    let entries = |kind: &str| {
        let pairs = (0..).map_while(|at| {
            let key = inputs.get(&format!("{kind}-{at}-key"))?;
            Some((utf8(key), Value::from(utf8(&inputs[&format!("{kind}-{at}-value")]))))
        });
        Value::Object(pairs.collect())
    };
    let slots = (0..).map_while(|at| Some((at, utf8(inputs.get(&format!("slot-{at}-provider"))?))));
    let providers = slots.filter_map(|(at, provider)| {
        let secret = inputs.get(&format!("slot-{at}-secret"))?;
        Some(match provider.as_str() {
            "raw" => json!({"kind": "raw", "name": utf8(&inputs[&format!("slot-{at}-key-id")]), "key": secret}),
            _ => json!({"kind": "passphrase", "passphrase": utf8(secret)}),
        })
    });
    json!({
        "providers": providers.collect::<Vec<_>>(), "context": entries("stored"), "unstored": entries("unstored"),
    })
}

#[test]
fn the_worked_examples_open_under_the_keys_that_the_page_gives() {
    let messages = messages();
    for (inputs, message) in &messages {
        let case = case(inputs);
        let expected = Outcome::Opened(unhex(inputs["plaintext"].as_str().unwrap()));
        let (envelope, context) = (envelope(&case), plain_context(&case));
        assert_eq!(whole(&envelope, message, &context), expected, "{case}");
        assert_eq!(streamed(&envelope, message, &context, 7, 5), expected, "{case}");
        assert_eq!(seeking(&envelope, message, &context), expected, "{case}");
        assert_eq!(ranged(&envelope, message, &context), expected, "{case}");
        assert_eq!(detached(&envelope, message, &context), expected, "{case}");

        let mut stranger = case.clone();
        for provider in stranger["providers"].as_array_mut().unwrap() {
            let secret = if provider["kind"] == "raw" { "key" } else { "passphrase" };
            let wrong = if secret == "key" { hex(&[1; 32]) } else { text(provider, secret).to_uppercase() };
            provider[secret] = wrong.into();
        }
        let outcome = whole(&crate::cases::envelope(&stranger), message, &context);
        assert_eq!(outcome.kind().as_deref(), Some("AuthenticationFailed"), "{stranger}");
    }
    assert_eq!(messages.len(), 4);
    say(format_args!("docs/format.md: {} messages open through the public interface", messages.len()));
}
