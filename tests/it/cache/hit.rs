//! What a hit costs: no allocation, and no system call.

use super::{Scene, context};
use crate::support::alloc::{Allocated, watch};
use crate::support::child::{Running, tell, words};
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{CacheLimits, CacheProbe, Header};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const HITS: u64 = 10_000;

fn warm() -> (Scene, CacheProbe) {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let acme = scene.envelope.for_tenant("acme");
    let message = wait(acme.encrypt(b"attack at dawn", &context(1))).unwrap();
    wait(acme.decrypt(&message, &context(1))).unwrap();
    let probe = acme.cache_probe(&Header::parse(&message).unwrap(), &context(1)).unwrap();
    (scene, probe)
}

/// So many hits in either direction; each is ready at its first poll.
fn hit(probe: &CacheProbe) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    (0..HITS).all(|_| {
        let writing = matches!(pin!(probe.writing(14)).poll(&mut cx), Poll::Ready(Ok(())));
        writing && matches!(pin!(probe.reading()).poll(&mut cx), Poll::Ready(Ok(())))
    })
}

#[test]
fn a_hit_allocates_nothing() {
    let (scene, probe) = warm();
    let before = scene.counts();
    let (all, allocated) = watch(|| hit(&probe));
    assert!(all);
    assert_eq!(allocated, Allocated::default());
    let [encrypt, decrypt] = scene.agree();
    assert_eq!((encrypt.hits, decrypt.hits), (before[0].hits + HITS, before[1].hits + HITS));
    // The watch sees what a miss allocates.
    scene.cache.invalidate_all();
    let (all, allocated) = watch(|| hit(&probe));
    assert!(all && allocated.total > 0);
    say(format!("cache: {} hits allocated nothing", 2 * HITS));
}

/// How a fork of this process ends that may do nothing but compute and exit.
fn confined(work: impl FnOnce()) -> i32 {
    // SAFETY: this process is a part with no other thread that could hold a lock: libtest runs a single
    // test on its main thread. The child ends in here.
    let id = unsafe { libc::fork() };
    assert!(id >= 0, "{}", std::io::Error::last_os_error());
    if id == 0 {
        // SAFETY: from here on the kernel kills this process at any call but `read`, `write`, `sigreturn` and the
        // plain `exit` that ends it.
        unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT);
            work();
            libc::syscall(libc::SYS_exit, 7);
        }
    }
    let mut status = 0;
    // SAFETY: it is our child, and `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(id, &raw mut status, 0) }, id);
    status
}

#[test]
fn a_hit_makes_no_system_call() {
    if words().is_none() {
        let lines = Running::start("cache::hit::a_hit_makes_no_system_call", &["confined"]).succeed();
        return say(lines.last().unwrap());
    }
    // (On the test's clock: where the machine's own needs the kernel, so does the system's clock.)
    let (_scene, probe) = warm();
    let mut hits = false;
    let ended = confined(|| {
        if !hit(&probe) {
            // Anything that is killed for it.
            let _ = std::process::id();
        }
    });
    assert!(libc::WIFEXITED(ended) && libc::WEXITSTATUS(ended) == 7, "killed: {ended}");
    let killed = confined(|| {
        hits = std::process::id() == 0;
    });
    assert!(!hits && libc::WIFSIGNALED(killed) && libc::WTERMSIG(killed) == libc::SIGKILL, "not confined: {killed}");
    tell(format!("cache: {} hits where any system call kills", 2 * HITS));
}
