//! Two futures at once, without a runtime's help.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Which of two was done first.
pub(super) enum First<A, B> {
    Left(A),
    Right(B),
}

/// Waits for whichever is done first, the left one where both are. The other is not dropped: it can be waited for further.
pub(super) async fn race<A: Future + ?Sized, B: Future + ?Sized>(
    mut left: Pin<&mut A>,
    mut right: Pin<&mut B>,
) -> First<A::Output, B::Output> {
    poll_fn(|context| {
        if let Poll::Ready(done) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(done));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}
