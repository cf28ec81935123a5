//! One call: attempts, waits between them, a second request beside a slow one, and an end in time.

use super::breaker::{Pass, Refused, Role};
use super::client::{Health, Shared, Ticket};
use super::exchange::{Exchange, Verdict};
use super::gate::Place;
use super::race::{First, race};
use super::retry_after::retry_after;
use super::told::{Happened, Sending, Sent};
use super::transport::{ExchangeLimits, TransportError, TransportFailure};
use super::{failed, meter, trace};
use crate::error::remote::{Stopped, Tried};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A call under way.
pub(super) struct Call<'a, E> {
    shared: &'a Shared,
    exchange: &'a E,
    operation: &'static str,
    begun: Duration,
    progress: Mutex<Progress>,
}

/// How far it came: what the end of its time finds.
struct Progress {
    sent: u32,
    /// How many of them followed a renewal of credentials, and count for no attempt.
    renewed: u32,
    under_way: Vec<Pass>,
    last: Option<Lost>,
    /// What it waits for, where no request is under way.
    waits_for: &'static str,
}

/// An attempt without a good answer, which may be repeated.
enum Lost {
    /// An answer, and what telemetry and other calls may be told of it: nothing that a server wrote.
    Answer(Error, String),
    Nothing(TransportError),
}

/// What came of an attempt.
enum Outcome<T> {
    Done(T),
    Final(Error),
    Renew(Error),
    Lost(Lost, Option<Duration>),
}

impl<'a, E: Exchange> Call<'a, E> {
    pub(super) fn new(shared: &'a Shared, exchange: &'a E) -> Self {
        let progress = Progress { sent: 0, renewed: 0, under_way: Vec::new(), last: None, waits_for: "its turn" };
        let (operation, begun) = (exchange.operation(), shared.now());
        Self { shared, exchange, operation, begun, progress: Mutex::new(progress) }
    }

    /// To its end, within the time that the policy allows.
    pub(super) async fn run(self) -> Result<E::Answer> {
        let shared = self.shared;
        // Before anything is waited for: there may be nobody to wait by.
        if let Err(error) = shared.transport.check() {
            return Err(self.give_up(Lost::Nothing(error), Stopped::Useless));
        }
        let span =
            trace::CallSpan::new(&shared.server, self.operation, self.exchange.system(), || self.exchange.subject());
        let mut work = pin!(span.around(self.attempts()));
        let mut bell = shared.transport.sleep(shared.policy.total);
        let answer = match race(work.as_mut(), bell.as_mut()).await {
            First::Left(answer) => answer,
            First::Right(()) => Err(self.out_of_time()),
        };
        let error = answer.as_ref().err();
        span.ended(error, self.progress().sent);
        meter::called(&shared.server, self.operation, error);
        answer
    }

    async fn attempts(&self) -> Result<E::Answer> {
        let shared = self.shared;
        let (mut failures, mut ticket) = (0, None::<Ticket<'_>>);
        loop {
            shared.would_admit().map_err(|refused| self.held_back(&refused))?;
            self.progress().waits_for = "its credentials";
            let request = self.exchange.request().await?;
            self.progress().waits_for = "its turn among the requests under way";
            let place = shared.gate.enter().await;
            let pass = shared.admit(self.operation).map_err(|refused| self.held_back(&refused))?;
            match ticket.take() {
                Some(ticket) => ticket.spend(),
                // A call that an open breaker holds back pays nothing in.
                None => shared.earn(),
            }
            let (lost, after) = match self.attempt(request, pass, place).await {
                Outcome::Done(answer) => return Ok(answer),
                Outcome::Final(error) => return Err(error),
                Outcome::Renew(error) => {
                    ticket = Some(self.renew(error).await?);
                    continue;
                }
                Outcome::Lost(lost, after) => (lost, after),
            };
            let (wait, token) = match self.plan(failures, &lost, after)? {
                Ok(plan) => plan,
                Err(stopped) => return Err(self.give_up(lost, stopped)),
            };
            failures += 1;
            shared.tell(self.operation, &Happened::Retrying { wait, why: lost.why() });
            self.progress().last = Some(lost);
            ticket = Some(token);
            self.progress().waits_for = "the pause before another attempt";
            shared.transport.sleep(wait).await;
        }
    }

    /// Gets new credentials, once in a call, and the token that pays for the request by them. Without one, the refusal is no word
    /// about whoever has the new ones.
    async fn renew(&self, refused: Error) -> Result<Ticket<'a>> {
        let shared = self.shared;
        if self.progress().renewed > 0 {
            return Err(refused);
        }
        shared.tell(self.operation, &Happened::Renewing);
        self.progress().waits_for = "new credentials";
        self.exchange.renew().await?;
        self.progress().renewed += 1;
        shared.ticket().ok_or_else(|| {
            shared.tell(self.operation, &Happened::OverBudget);
            self.with_tried(Stopped::Budget, |tried| Error::not_sent_again(tried, refused))
        })
    }

    /// How long to wait before another attempt, and the token that pays for it; or why there is none.
    fn plan(
        &self,
        failures: u32,
        lost: &Lost,
        after: Option<Duration>,
    ) -> Result<Result<(Duration, Ticket<'a>), Stopped>> {
        let shared = self.shared;
        if !lost.is_worth_another() {
            return Ok(Err(Stopped::Useless));
        }
        if !self.progress().may_send(shared.policy.attempts) {
            return Ok(Err(Stopped::Attempts));
        }
        if shared.would_admit().is_err() {
            return Ok(Err(Stopped::Breaker));
        }
        let wait = shared.backoff.wait(failures)?.saturating_add(after.unwrap_or_default());
        if shared.now().saturating_add(wait) >= self.deadline() {
            return Ok(Err(Stopped::Time));
        }
        Ok(shared.ticket().map(|ticket| (wait, ticket)).ok_or_else(|| {
            shared.tell(self.operation, &Happened::OverBudget);
            Stopped::Budget
        }))
    }

    /// One attempt, perhaps with a second request once the first is slow.
    async fn attempt(&self, request: http::Request<Bytes>, pass: Pass, place: Place) -> Outcome<E::Answer> {
        let shared = self.shared;
        let may_hedge = shared.policy.hedge && self.exchange.may_hedge() && pass.role == Role::Ordinary;
        let slow = if may_hedge { shared.slow() } else { None };
        let mut first = pin!(self.send(request, pass, place));
        let Some(slow) = slow else { return first.await };
        let started = shared.now();
        let mut bell = shared.transport.sleep(slow);
        if let First::Left(outcome) = race(first.as_mut(), bell.as_mut()).await {
            return outcome;
        }
        let mut second = pin!(self.second());
        match race(first.as_mut(), second.as_mut()).await {
            First::Left(Outcome::Lost(lost, after)) => match second.await {
                None | Some(Outcome::Lost(..)) => Outcome::Lost(lost, after),
                Some(better) => better,
            },
            // The second may carry newer credentials, or be at a server that knows those of the first already. Its refusal decides
            // no more than it does below.
            First::Left(Outcome::Renew(error)) => match second.await {
                Some(done @ Outcome::Done(_)) => done,
                _ => Outcome::Renew(error),
            },
            First::Left(outcome) => outcome,
            First::Right(Some(Outcome::Done(answer))) => {
                // It would have taken longer than that: without it, what is slow would never show.
                shared.took(shared.now().saturating_sub(started));
                Outcome::Done(answer)
            }
            // The copy may have reached a server that lags behind: a refusal of it decides only if the first one fails as well.
            First::Right(second) => match (first.await, second) {
                (Outcome::Lost(..), Some(outcome @ (Outcome::Final(_) | Outcome::Renew(_)))) => outcome,
                (outcome, _) => outcome,
            },
        }
    }

    /// The request once more, if there is a place, a token and leave for it at once.
    async fn second(&self) -> Option<Outcome<E::Answer>> {
        let shared = self.shared;
        if !self.progress().may_send(shared.policy.attempts) {
            return None;
        }
        let ticket = shared.ticket()?;
        let request = self.exchange.request().await.ok()?;
        let place = shared.gate.try_enter()?;
        shared.would_admit().ok()?;
        let pass = shared.admit(self.operation).ok()?;
        ticket.spend();
        shared.tell(self.operation, &Happened::Hedged);
        Some(self.send(request, pass, place).await)
    }

    async fn send(&self, request: http::Request<Bytes>, pass: Pass, _place: Place) -> Outcome<E::Answer> {
        let shared = self.shared;
        let resend = self.progress().begin(pass);
        let started = shared.now();
        let mut under_way = UnderWay { call: self, pass, started, is_over: false };
        let _gauge = meter::under_way(&shared.server);
        let ExchangeLimits { connect, total, body } = shared.policy.exchange;
        let limits = ExchangeLimits { connect, total: total.min(self.deadline().saturating_sub(started)), body };
        let sending = Sending {
            server: &shared.server,
            operation: self.operation,
            method: request.method().clone(),
            uri: request.uri().clone(),
            resend,
        };
        let span = trace::AttemptSpan::new(&sending);
        let received = span.around(shared.transport.send(request, &limits)).await;
        let time = shared.now().saturating_sub(started);
        let status = received.as_ref().ok().map(http::Response::status);
        let (outcome, health) = match received {
            Ok(response) => self.judge(response),
            Err(error) => {
                let health = match error.failure() {
                    TransportFailure::Unusable => Health::Unknown,
                    // Cut short by the end of the call: it had no chance, and says nothing.
                    TransportFailure::Timeout if time < self.patience() => Health::Unknown,
                    _ => Health::Ill,
                };
                (Outcome::Lost(Lost::Nothing(error), None), health)
            }
        };
        let error = outcome.error_type(status);
        let sent = Sent { status, error: error.as_deref(), time };
        span.ended(&sent);
        meter::sent(&sending, &sent);
        if self.exchange.may_hedge() && matches!(outcome, Outcome::Done(_)) {
            shared.took(time);
        }
        under_way.is_over = true;
        shared.note(self.operation, pass, health, outcome.why());
        outcome
    }

    fn judge(&self, response: http::Response<Bytes>) -> (Outcome<E::Answer>, Health) {
        let wish = retry_after(response.headers(), self.shared.clock.wall());
        let status = response.status();
        match self.exchange.judge(response) {
            Verdict::Done(answer) => (Outcome::Done(answer), Health::Well),
            Verdict::Fail(error) => (Outcome::Final(error), Health::Well),
            Verdict::Renew(error) => (Outcome::Renew(error), Health::Well),
            Verdict::Unwell(error) => {
                let said = said(status, &error);
                (Outcome::Lost(Lost::Answer(error, said), wish), Health::Ill)
            }
            Verdict::Throttled { error, after } => {
                self.shared.tell(self.operation, &Happened::Throttled);
                let said = said(status, &error);
                (Outcome::Lost(Lost::Answer(error, said), after.or(wish)), Health::Well)
            }
        }
    }

    /// The time after which a request without an answer speaks against the endpoint: half of what it may have.
    fn patience(&self) -> Duration {
        let policy = &self.shared.policy;
        policy.exchange.total.min(policy.total) / 2
    }

    fn deadline(&self) -> Duration {
        self.begun.saturating_add(self.shared.policy.total)
    }

    fn give_up(&self, lost: Lost, stopped: Stopped) -> Error {
        self.with_tried(stopped, |tried| match lost {
            Lost::Answer(error, _) => error.after(tried),
            Lost::Nothing(error) => {
                let advice = self.exchange.advice(error.failure());
                failed::unanswered(tried, error, advice)
            }
        })
    }

    /// The breaker is open: the failure of an earlier attempt says more, if there was one.
    fn held_back(&self, refused: &Refused) -> Error {
        let last = self.progress().last.take();
        if let Some(lost) = last {
            return self.give_up(lost, Stopped::Breaker);
        }
        self.shared.tell(self.operation, &Happened::HeldBack);
        let now = self.shared.now();
        let (open, probe) = (now.saturating_sub(refused.since), refused.next_probe.saturating_sub(now));
        self.with_tried(Stopped::Breaker, |tried| Error::held_back(tried, open, probe, &refused.cause))
    }

    /// The whole time is up, whatever it was that took it.
    fn out_of_time(&self) -> Error {
        let (hangs, last, waits_for) = {
            let mut progress = self.progress();
            (!progress.under_way.is_empty(), progress.last.take(), progress.waits_for)
        };
        match last {
            // What hangs counts against the endpoint once it is dropped.
            _ if hangs => {
                let error = TransportError::new(TransportFailure::Timeout, LATE);
                self.give_up(Lost::Nothing(error), Stopped::Time)
            }
            Some(lost) => self.give_up(lost, Stopped::Time),
            None => self.with_tried(Stopped::Time, |tried| Error::out_of_time(tried, waits_for)),
        }
    }

    fn with_tried(&self, stopped: Stopped, make: impl FnOnce(&Tried<'_>) -> Error) -> Error {
        let subject = self.exchange.subject();
        make(&Tried {
            operation: self.operation,
            subject: &subject,
            endpoint: self.shared.endpoint.as_str(),
            attempts: self.progress().sent,
            time: self.shared.now().saturating_sub(self.begun),
            stopped,
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Whether one more request would still be within `attempts`.
    fn may_send(&self, attempts: u32) -> bool {
        self.sent.saturating_sub(self.renewed) < attempts
    }

    /// A request goes out: how many did before.
    fn begin(&mut self, pass: Pass) -> u32 {
        self.under_way.push(pass);
        self.sent += 1;
        self.sent - 1
    }
}

/// A request of a call, until it ends or is dropped: one that was given up after a long time speaks against the endpoint too, since
/// callers with less patience than the policy would otherwise never learn that nobody answers.
struct UnderWay<'a, 'b, E: Exchange> {
    call: &'a Call<'b, E>,
    pass: Pass,
    started: Duration,
    /// What became of it was noted.
    is_over: bool,
}

impl<E: Exchange> Drop for UnderWay<'_, '_, E> {
    fn drop(&mut self) {
        let Self { call, pass, started, is_over } = self;
        {
            let mut progress = call.progress();
            if let Some(at) = progress.under_way.iter().position(|found| found == pass) {
                progress.under_way.swap_remove(at);
            }
        }
        if !*is_over && call.shared.now().saturating_sub(*started) >= call.patience() {
            call.shared.note(call.operation, *pass, Health::Ill, LATE);
        }
    }
}

const LATE: &str = "the answer was not there in time";

impl Lost {
    fn is_worth_another(&self) -> bool {
        match self {
            Self::Answer(..) => true,
            // A certificate that is not trusted will not be the next time.
            Self::Nothing(error) => !matches!(error.failure(), TransportFailure::Tls | TransportFailure::Unusable),
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::Answer(_, said) => said,
            Self::Nothing(error) => error.message(),
        }
    }
}

impl<T> Outcome<T> {
    fn why(&self) -> &str {
        match self {
            Self::Done(_) | Self::Final(_) | Self::Renew(_) => "",
            Self::Lost(lost, _) => lost.why(),
        }
    }

    /// What `error.type` is: the status where there is one, the transport's failure, or the error's own name.
    fn error_type(&self, status: Option<http::StatusCode>) -> Option<String> {
        let error = match self {
            Self::Done(_) => return None,
            Self::Lost(Lost::Nothing(error), _) => return Some(failed::name(error.failure()).to_owned()),
            Self::Final(error) | Self::Renew(error) | Self::Lost(Lost::Answer(error, _), _) => error,
        };
        match (error.code(), status) {
            (Some(code), _) => Some(code.to_owned()),
            (None, Some(status)) if !status.is_success() => Some(status.as_str().to_owned()),
            (None, _) => Some(format!("{:?}", error.kind())),
        }
    }
}

/// What others may be told of an answer: its status and the KMS's name for the error. What a server wrote may hold what it was sent.
fn said(status: http::StatusCode, error: &Error) -> String {
    match error.code() {
        Some(code) => format!("HTTP {} {code}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    }
}
