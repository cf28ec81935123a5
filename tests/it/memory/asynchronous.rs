//! The asynchronous shells, while keys are looked for.

use super::scenes::{AEADS, PLAINTEXT, Watch, none};
use envelock::blocking::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) fn shells() {
    let watch = Watch::new();
    for (n, aead) in AEADS.into_iter().enumerate() {
        let name = format!("wrapping-key-{n}");
        let envelope = watch.envelope_of(watch.raw(&name), aead);
        let encryptor = envelope.encryptor(&none()).unwrap();
        watch.message(encryptor.head());
        let mut writer = encryptor.into_async_writer(Vec::new());
        wait(writer.write_all(PLAINTEXT)).unwrap();
        watch.expect(&[&name, "message-key"]);
        let sealed = wait(writer.finish()).unwrap();
        // One that is dropped in the middle.
        let encryptor = envelope.encryptor(&none()).unwrap();
        watch.message(encryptor.head());
        let mut writer = encryptor.into_async_writer(Vec::new());
        wait(writer.write_all(PLAINTEXT)).unwrap();
        drop(writer);

        let mut reader = wait(envelope.inner().decrypt_async_reader(&*sealed, &none())).unwrap();
        let mut some = [0; 1_000];
        wait(reader.read_exact(&mut some)).unwrap();
        watch.expect(&[&name]);
        drop(reader);
        let mut reader = wait(envelope.inner().decrypt_async_reader(&*sealed, &none())).unwrap();
        let mut all = Vec::new();
        wait(reader.read_to_end(&mut all)).unwrap();
        assert!(all == PLAINTEXT);
        drop((reader, envelope));
        watch.expect_nothing();
    }
}
