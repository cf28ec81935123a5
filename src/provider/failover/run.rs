//! One call on a failover provider: whom to ask next, and when that is over.

use super::pace::Paces;
use super::{FailoverProvider, Order};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::KeyProvider;
use crate::provider::at_once::{AtOnce, Call};
use crate::provider::multi::{name, summed_up};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// What members are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Generate,
    Encrypt,
    Decrypt,
    ReEncrypt,
}

impl Task {
    fn failed(self) -> &'static str {
        match self {
            Self::Generate => "no key provider made a data key",
            Self::Encrypt => "no key provider encrypted the data key",
            Self::Decrypt => "no key provider decrypted the data key",
            Self::ReEncrypt => "no key provider re-encrypted the data key",
        }
    }

    /// Whether a failure says that this member is no use for now. A mistake in the call says nothing about it, and names of
    /// slots may be the same in two places where their keys differ.
    fn blames(self, error: &Error) -> bool {
        let another_key = matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::NoMatchingKey);
        let mistake = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::LimitExceeded);
        match self {
            Self::Generate | Self::Encrypt => !mistake,
            Self::Decrypt | Self::ReEncrypt => !mistake && !another_key,
        }
    }
}

/// What a member says, and what all of them come to.
#[derive(Debug)]
pub(super) enum Said<T> {
    Answer(T),
    Failed(Error),
    NotMine,
}

impl<T> Said<T> {
    pub(super) fn of(result: Result<T>) -> Self {
        result.map_or_else(Self::Failed, Self::Answer)
    }

    /// The answer of a call that is for anybody.
    pub(super) fn written(self) -> Result<T> {
        match self {
            Self::Answer(answer) => Ok(answer),
            Self::Failed(error) => Err(error),
            Self::NotMine => Err(Error::internal("failover asked nobody")),
        }
    }
}

/// What ended a wait.
enum Event<T> {
    Said(usize, Said<T>),
    /// Nobody has answered for long enough to ask the next as well.
    Silence,
}

/// The members that are being asked, and since when.
///
/// Where whoever called gives up, those that had not answered are remembered as at least as slow as that.
struct Asked<'a, T> {
    provider: &'a FailoverProvider,
    begun: Vec<Duration>,
    calls: AtOnce<'a, Said<T>>,
}

impl<T> Asked<'_, T> {
    /// One has done it; those still under way have taken at least as long.
    fn answered(&self, number: usize) {
        self.told(number);
        for other in self.calls.numbers() {
            self.note(other, Paces::outrun);
        }
    }

    /// One has said no, which says how near it is.
    fn told(&self, number: usize) {
        self.note(number, Paces::answered);
    }

    /// One was no use.
    fn failed(&self, number: usize) {
        self.note(number, Paces::failed);
    }

    fn note(&self, number: usize, what: impl Fn(&Paces, usize, Duration, Duration)) {
        if let Some(paces) = self.provider.paces() {
            let now = self.provider.clock.now();
            let begun = self.begun.get(number).copied().unwrap_or(now);
            what(paces, number, now.saturating_sub(begun), now);
        }
    }
}

impl<T> Drop for Asked<'_, T> {
    fn drop(&mut self) {
        for number in self.calls.numbers() {
            self.note(number, Paces::given_up);
        }
    }
}

impl FailoverProvider {
    /// Asks one member after the other, as the policy says, until one answers.
    pub(super) async fn first<'a, T: Send>(
        &'a self,
        task: Task,
        ask: impl Fn(&'a dyn KeyProvider) -> Call<'a, Said<T>> + Send,
    ) -> Said<T> {
        let started = self.clock.now();
        let mut waiting = self.turns(started);
        let mut asked = Asked { provider: self, begun: vec![Duration::ZERO; self.members.len()], calls: AtOnce::new() };
        let mut failures = Vec::new();
        let mut silence = None;
        let mut asks_next = true;
        loop {
            if asks_next || asked.calls.is_empty() {
                let Some(next) = waiting.pop_front() else {
                    if asked.calls.is_empty() {
                        return self.nobody(task, failures);
                    }
                    asks_next = false;
                    continue;
                };
                let Some(member) = self.members.get(next) else { continue };
                asked.begun[next] = self.clock.now();
                asked.calls.push(next, ask(&**member));
                silence = self.hedge.as_ref().filter(|_| !waiting.is_empty()).map(|hedge| hedge.wait());
            }
            let event = poll_fn(|context| {
                if let Poll::Ready((number, said)) = asked.calls.poll(context) {
                    return Poll::Ready(Event::Said(number, said));
                }
                match silence.as_mut().map(|silence| silence.as_mut().poll(context)) {
                    Some(Poll::Ready(())) => Poll::Ready(Event::Silence),
                    Some(Poll::Pending) | None => Poll::Pending,
                }
            });
            asks_next = match event.await {
                Event::Said(number, Said::Answer(answer)) => {
                    asked.answered(number);
                    return Said::Answer(answer);
                }
                Event::Said(number, Said::Failed(error)) => {
                    match task.blames(&error) {
                        true => asked.failed(number),
                        false => asked.told(number),
                    }
                    let throttled = error.code() == Some(THROTTLED);
                    failures.push((number, error));
                    if throttled {
                        self.pass_over(number, &mut waiting, &mut failures);
                    }
                    true
                }
                Event::Said(number, Said::NotMine) => {
                    self.not_asked(number, started);
                    true
                }
                Event::Silence => {
                    silence = None;
                    true
                }
            };
        }
    }

    /// The members' numbers in the order in which they are asked.
    fn turns(&self, now: Duration) -> VecDeque<usize> {
        match self.paces() {
            None => (0..self.members.len()).collect(),
            Some(paces) => paces.turns(now).into(),
        }
    }

    /// Its turn, if it was that, is another call's.
    fn not_asked(&self, number: usize, started: Duration) {
        if let Some(paces) = self.paces() {
            paces.not_asked(number, started);
        }
    }

    fn paces(&self) -> Option<&Paces> {
        match &self.order {
            Order::Listed => None,
            Order::Nearest(paces) => Some(paces),
        }
    }

    /// Takes those off the list that share the requests of one that had too many.
    fn pass_over(&self, throttled: usize, waiting: &mut VecDeque<usize>, failures: &mut Vec<(usize, Error)>) {
        let quota = |number: usize| self.members.get(number).and_then(|member| quota(&**member));
        let Some(spent) = quota(throttled) else { return };
        waiting.retain(|number| {
            let shares = quota(*number).as_ref() == Some(&spent);
            if shares {
                let what = format!("not asked, since it shares the requests per second of {spent}, which are used up");
                failures.push((*number, Error::new(ErrorKind::Busy, what).with_code(THROTTLED)));
            }
            !shares
        });
    }

    /// All have been asked, and none has done it.
    fn nobody<T>(&self, task: Task, mut failures: Vec<(usize, Error)>) -> Said<T> {
        failures.sort_by_key(|(number, _)| *number);
        if failures.len() == 1 {
            // What is one member's is told as it told it.
            return failures.pop().map_or(Said::NotMine, |(_, error)| Said::Failed(error));
        }
        if failures.is_empty() {
            return Said::NotMine;
        }
        let named = failures
            .into_iter()
            .filter_map(|(number, error)| self.members.get(number).map(|member| (named(&**member, number), error)));
        Said::Failed(summed_up(task.failed(), named.collect()))
    }
}

/// A member that can open anything writes nothing, and is known by its place.
fn named(member: &dyn KeyProvider, number: usize) -> String {
    match name(member) {
        name if name.is_empty() => format!("member {}", number + 1),
        name => name,
    }
}

/// AWS's answer to more requests than an account may make in a Region.
const THROTTLED: &str = "ThrottlingException";

/// The account and Region whose requests per second a member uses, where its recipients' names tell:
/// `arn:aws:kms:REGION:ACCOUNT:…`.
fn quota(member: &dyn KeyProvider) -> Option<String> {
    member.recipients().iter().find_map(|recipient| {
        let mut parts = std::str::from_utf8(&recipient.key_id).ok()?.splitn(6, ':');
        let (arn, _partition, kms) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, _resource) = (parts.next()?, parts.next()?, parts.next()?);
        (arn == "arn" && kms == "kms").then(|| format!("account {account} in {region}"))
    })
}
