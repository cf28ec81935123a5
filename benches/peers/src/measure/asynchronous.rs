//! The asynchronous writer and reader against the synchronous ones, in pieces of 64 KiB, on one core: what
//! it costs to be polled.

use crate::common::bulk::{Buffers, CHUNK, LEN};
use crate::common::report::Report;
use crate::common::subject::Subject;
use crate::common::{Amount, Group};
use envelock::AeadAlgorithm;
use std::io::Cursor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 15;

pub const SYNC: &str = "synchronous";
pub const ASYNC: &str = "asynchronous";

/// Groups `async-encrypt` and `async-decrypt`.
pub fn measure(report: &mut Report, buffers: &Buffers) {
    if !["async-encrypt", "async-decrypt"].iter().any(|id| report.wants(id)) {
        return;
    }
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let subject = Subject::new(AeadAlgorithm::Aes256Gcm, 64 << 10);
    let plain = &buffers.plain[..];
    let (sealed, out) = (&buffers.sealed, &buffers.out);
    if report.wants("async-encrypt") {
        let title = "encrypt 256 MiB into a sink, 64 KiB segments";
        let measured = Group::new("async-encrypt", title, Amount::Bytes(LEN), 1)
            .case(SYNC, || subject.write(plain, &mut sealed.borrow_mut(), CHUNK))
            .case(ASYNC, || write(&runtime, &subject, plain, &mut sealed.borrow_mut()))
            .run(ROUNDS);
        report.add(&measured, &[SYNC]);
    }
    if report.wants("async-decrypt") {
        let len = write(&runtime, &subject, plain, &mut sealed.borrow_mut());
        let message = sealed.borrow()[..len].to_vec();
        buffers.check(SYNC, |out| subject.read(&message, out, CHUNK));
        buffers.check(ASYNC, |out| read(&runtime, &subject, &message, out));
        let title = "decrypt 256 MiB from a source, 64 KiB segments";
        let measured = Group::new("async-decrypt", title, Amount::Bytes(LEN), 1)
            .case(SYNC, || subject.read(&message, &mut out.borrow_mut(), CHUNK))
            .case(ASYNC, || read(&runtime, &subject, &message, &mut out.borrow_mut()))
            .run(ROUNDS);
        report.add(&measured, &[SYNC]);
    }
}

/// Returns the length of the message.
fn write(runtime: &Runtime, subject: &Subject, plain: &[u8], out: &mut [u8]) -> usize {
    runtime.block_on(async {
        let sink = Cursor::new(out);
        let mut writer = subject.envelope.encrypt_async_writer(sink, &subject.context).await.expect("the key wraps");
        for piece in plain.chunks(CHUNK) {
            writer.write_all(piece).await.expect("room");
        }
        writer.finish().await.expect("room").position() as usize
    })
}

fn read(runtime: &Runtime, subject: &Subject, sealed: &[u8], out: &mut [u8]) {
    runtime.block_on(async {
        let mut reader = subject.envelope.decrypt_async_reader(sealed, &subject.context).await.expect("our message");
        for piece in out.chunks_mut(CHUNK) {
            reader.read_exact(piece).await.expect("authentic");
        }
        assert_eq!(reader.read(&mut [0]).await.expect("the end"), 0);
    });
}
