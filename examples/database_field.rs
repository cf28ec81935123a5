//! One field of a table in SQLite, sealed row by row: found by the row's exact id, opened by the row alone.
//!
//! The ids stay in the clear, since what is sealed cannot be searched: the same value is sealed differently each
//! time. The headers of the record sets lie in a table of their own, under their fingerprints, so that old rows
//! stay readable after a new set is begun.
//!
//! `cargo run --example database_field`

use envelock::blocking::Envelope;
use envelock::{Column, EncryptionContext, Fingerprint, LocalKms, Records, RootKey};
use rusqlite::{Connection, OptionalExtension, params};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const IBAN: Column<'_> = Column::new("customers", "iban");

/// The customers of one tenant, with the record sets that were opened so far.
struct Customers {
    database: Connection,
    envelope: Envelope,
    context: EncryptionContext,
    records: Records,
}

impl Customers {
    fn open(database: Connection, envelope: Envelope) -> Result<Self> {
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS record_sets (fingerprint BLOB PRIMARY KEY, header BLOB NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS customers (id TEXT PRIMARY KEY, iban BLOB NOT NULL) STRICT;",
        )?;
        let context = EncryptionContext::from([("tenant", "acme"), ("table", "customers")]);
        Ok(Self { database, envelope, context, records: Records::new() })
    }

    /// Seals the fields of new rows under a set of their own: one call of the key service, one draw of randomness.
    fn insert(&mut self, rows: &[(&str, &str)]) -> Result<()> {
        let set = self.envelope.record_set(&self.context)?;
        let fields: Vec<_> = rows.iter().map(|(id, iban)| (iban, IBAN.row(id))).collect();
        let sealed = set.seal_batch(&fields)?;
        let change = self.database.transaction()?;
        change
            .execute("INSERT INTO record_sets VALUES (?1, ?2)", params![set.fingerprint().as_bytes(), set.header()])?;
        for ((id, _), record) in rows.iter().zip(sealed) {
            change.execute("INSERT INTO customers VALUES (?1, ?2)", params![id, record])?;
        }
        change.commit()?;
        self.records.add(set)?;
        Ok(())
    }

    /// The field of the row with exactly this id.
    fn iban(&mut self, id: &str) -> Result<Option<String>> {
        let found = "SELECT iban FROM customers WHERE id = ?1";
        let found: Option<Vec<u8>> = self.database.query_row(found, [id], |row| row.get(0)).optional()?;
        let Some(record) = found else { return Ok(None) };
        let fingerprint = Fingerprint::of_record(&record)?;
        if self.records.set(&fingerprint).is_none() {
            let header: Vec<u8> = self.database.query_row(
                "SELECT header FROM record_sets WHERE fingerprint = ?1",
                [fingerprint.as_bytes()],
                |row| row.get(0),
            )?;
            self.records.add(self.envelope.open_record_set(&header, &self.context)?)?;
        }
        Ok(Some(String::from_utf8(self.records.open(&record, &IBAN.row(id))?)?))
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let kms = LocalKms::open(path("keys.db"), RootKey::file(path("root.key"))?)?;
    let provider = kms.provider("alias/envelock/default")?;
    let open = || -> Result<Customers> {
        let envelope = Envelope::new(envelock::Envelope::builder(provider.clone()).build()?);
        Customers::open(Connection::open(path("customers.db"))?, envelope)
    };

    let mut customers = open()?;
    customers.insert(&[("4711", "DE02120300000000202051"), ("4712", "DE02500105170137075030")])?;
    customers.insert(&[("4713", "DE02100500000054540402")])?;
    drop(customers);

    let mut customers = open()?;
    for id in ["4711", "4712", "4713", "471"] {
        println!("{id}: {}", customers.iban(id)?.as_deref().unwrap_or("no such customer"));
    }
    assert_eq!(customers.records.len(), 2);

    // Whoever can write the database may copy a field to another row: it does not open there.
    customers
        .database
        .execute("UPDATE customers SET iban = (SELECT iban FROM customers WHERE id = '4711') WHERE id = '4712'", [])?;
    println!("4712: {}", customers.iban("4712").expect_err("a field of another row"));
    Ok(())
}
