//! `Sealed<T>`: fields of structs that are sealed by themselves.

use crate::support::providers::raw;
use envelock::blocking::Envelope;
use envelock::{Column, EncryptionContext, ErrorKind, Field, RecordSet, Records, Sealed};
use serde::de::IntoDeserializer;
use serde::de::value::{BytesDeserializer, Error as ValueError};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
    number: u16,
}

impl Field for Address {
    const TABLE: &'static str = "customers";
    const COLUMN: &'static str = "address";
}

/// The same content for another column.
#[derive(Debug, Serialize, Deserialize)]
struct OldAddress(Address);

impl Field for OldAddress {
    const TABLE: &'static str = "customers";
    const COLUMN: &'static str = "old_address";
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Customer {
    id: u64,
    address: Sealed<Address>,
    note: Option<Sealed<Address>>,
}

fn set() -> RecordSet {
    let envelope = Envelope::new(envelock::Envelope::builder(raw("primary", 7)).build().unwrap());
    envelope.record_set(&EncryptionContext::from([("tenant", "acme")])).unwrap()
}

fn address() -> Address {
    Address { street: "Geheimstraße".into(), number: 7 }
}

fn kind<T>(result: Result<T, envelock::Error>) -> ErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn a_sealed_field_travels_in_json_and_opens_in_its_row_alone() {
    let set = set();
    let sealed = Sealed::seal(&set, "1", &address()).unwrap();
    let customer = Customer { id: 1, address: sealed.clone(), note: None };
    let json = serde_json::to_string(&customer).unwrap();
    assert!(json.contains("\"address\":\"elk1.") && !json.contains("Geheim"), "{json}");
    let back: Customer = serde_json::from_str(&json).unwrap();
    assert_eq!(back, customer);
    let mut records = Records::new();
    records.add(set.clone()).unwrap();
    assert_eq!(back.address.open(&records, "1").unwrap(), address());
    assert_eq!(back.address.open(&set, b"1").unwrap(), address());
    assert_eq!(kind(back.address.open(&set, "2")), ErrorKind::AuthenticationFailed);
    assert_eq!(kind(back.address.open(&Records::new(), "1")), ErrorKind::NoMatchingKey);

    // Another column refuses the very same record, and its type's column alone opens it.
    let moved = Sealed::<OldAddress>::from_record(sealed.as_record()).unwrap();
    assert_eq!(kind(moved.open(&set, "1")), ErrorKind::AuthenticationFailed);
    let plain = set.open(&sealed.into_record(), &Column::new("customers", "address").row("1")).unwrap();
    assert_eq!(plain, r#"{"street":"Geheimstraße","number":7}"#.as_bytes());
}

#[test]
fn a_format_of_bytes_holds_the_record_itself() {
    let sealed = Sealed::seal(&set(), "1", &address()).unwrap();
    let bytes: BytesDeserializer<'_, ValueError> = sealed.as_record().into_deserializer();
    // This one calls itself readable, and hands over bytes all the same.
    assert_eq!(Sealed::<Address>::deserialize(bytes).unwrap(), sealed);
}

#[test]
fn debug_and_errors_never_show_the_value() {
    let set = set();
    let sealed = Sealed::seal(&set, "1", &address()).unwrap();
    let customer = Customer { id: 1, address: sealed.clone(), note: Some(sealed) };
    let shown = format!("{customer:?}");
    assert!(shown.contains(&format!("Sealed({}, ..)", set.fingerprint())), "{shown}");
    assert!(!shown.contains("Geheim") && !shown.contains("elk1"), "{shown}");

    // A value in the clear where a sealed one belongs is refused and not repeated.
    let error = serde_json::from_str::<Customer>(r#"{"id":1,"address":"Geheimstraße 7","note":null}"#).unwrap_err();
    assert!(!error.to_string().contains("Geheim"), "{error}");
    // Neither is what is sealed and no such value.
    let wrong = set.seal(b"\"Geheimstra\xC3\x9Fe\"", &Column::new("customers", "address").row("1")).unwrap();
    let error = Sealed::<Address>::from_record(wrong).unwrap().open(&set, "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(!format!("{error} {error:?}").contains("Geheim"), "{error:?}");
}
