//! Two threads against one, from slice to slice. Time on the wall.

use crate::common::bulk::{Buffers, LEN};
use crate::common::report::Report;
use crate::common::subject::Subject;
use crate::common::{Amount, Clock, Group};
use envelock::{AeadAlgorithm, Envelope, RawKeyProvider, Threads};

const ROUNDS: usize = 15;

pub const ONE: &str = "one thread";
pub const TWO: &str = "two threads";

/// Groups `threads-AEAD-encrypt` and `-decrypt`.
pub fn measure(report: &mut Report, buffers: &Buffers) {
    for (aead, name) in [(AeadAlgorithm::Aes256Gcm, "aes"), (AeadAlgorithm::ChaCha20Poly1305, "chacha")] {
        let ids = ["encrypt", "decrypt"].map(|direction| format!("threads-{name}-{direction}"));
        if !ids.iter().any(|id| report.wants(id)) {
            continue;
        }
        // One key for both, so that each opens what the other sealed.
        let key = [7; 32];
        let subjects = [1, 2].map(|count| {
            let threads = Threads::exactly(count).expect("within limits");
            let provider = RawKeyProvider::new("bench", envelock::Secret::init(|secret| *secret = key));
            let envelope =
                Envelope::builder(provider.expect("valid")).aead(aead).threads(threads).build().expect("valid");
            Subject::of(envelope)
        });
        let [encrypt, decrypt] = ids;
        let [one, two] = &subjects;
        let plain = &buffers.plain[..];
        let (sealed, out) = (&buffers.sealed, &buffers.out);
        if report.wants(&encrypt) {
            let measured = Group::new(
                encrypt,
                format!("{aead:?}, 64 KiB segments: encrypt 256 MiB slice to slice"),
                Amount::Bytes(LEN),
                1,
            )
            .by(Clock::Wall)
            .case(ONE, || one.seal_to(plain, &mut sealed.borrow_mut()))
            .case(TWO, || two.seal_to(plain, &mut sealed.borrow_mut()))
            .run(ROUNDS);
            report.add(&measured, &[ONE]);
        }
        if report.wants(&decrypt) {
            let len = two.seal_to(plain, &mut sealed.borrow_mut());
            let message = sealed.borrow()[..len].to_vec();
            buffers.check(ONE, |out| one.open_to(&message, out));
            buffers.check(TWO, |out| two.open_to(&message, out));
            let measured = Group::new(
                decrypt,
                format!("{aead:?}, 64 KiB segments: decrypt 256 MiB slice to slice"),
                Amount::Bytes(LEN),
                1,
            )
            .by(Clock::Wall)
            .case(ONE, || one.open_to(&message, &mut out.borrow_mut()))
            .case(TWO, || two.open_to(&message, &mut out.borrow_mut()))
            .run(ROUNDS);
            report.add(&measured, &[ONE]);
        }
    }
}
