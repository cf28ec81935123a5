//! The circuit breaker of an endpoint: it stops what would only fail, and lets one request through now and then to see.
//!
//! A value that is told what happened and when; it knows neither clock nor network. Outcomes count only for the time in
//! which their requests were let through: answers and time-outs from before it opened say nothing about now.

use std::time::Duration;

/// Whether an endpoint is worth asking.
#[derive(Debug)]
pub(super) struct Breaker {
    /// So many failures in a row open it; `None`: it never opens.
    limit: Option<u32>,
    probe_every: Duration,
    state: State,
    /// Counts openings and closings.
    epoch: u64,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { since: Duration, next_probe: Duration, cause: String, probing: bool },
}

/// Leave to send one request, and the time that its outcome counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    epoch: u64,
    pub(super) role: Role,
}

/// What a request that was let through is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The endpoint is well.
    Ordinary,
    /// It shows whether the endpoint is well again.
    Probe,
}

/// The endpoint is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// When it opened.
    pub(super) since: Duration,
    /// When the next probe may go.
    pub(super) next_probe: Duration,
    /// What the last failure was.
    pub(super) cause: String,
}

/// What a person or a gauge sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Closed,
    /// A probe is under way.
    HalfOpen,
    Open,
}

impl Breaker {
    /// A closed one, that opens after `limit` failures in a row and then lets one request through every `probe_every`.
    pub(super) fn new(limit: Option<u32>, probe_every: Duration) -> Self {
        Self { limit, probe_every, state: State::Closed { failures: 0 }, epoch: 0 }
    }

    /// Lets a request through, or not.
    ///
    /// A probe is counted by its time alone: one that is dropped, or hangs, keeps no place that another would need.
    pub(super) fn admit(&mut self, now: Duration) -> Result<Pass, Refused> {
        self.would_admit(now)?;
        let epoch = self.epoch;
        match &mut self.state {
            State::Closed { .. } => Ok(Pass { epoch, role: Role::Ordinary }),
            State::Open { next_probe, probing, .. } => {
                (*next_probe, *probing) = (now + self.probe_every, true);
                Ok(Pass { epoch, role: Role::Probe })
            }
        }
    }

    /// Whether [`admit`](Self::admit) would let a request through, without taking the probe's turn.
    pub(super) fn would_admit(&self, now: Duration) -> Result<(), Refused> {
        match &self.state {
            State::Open { since, next_probe, cause, .. } if now < *next_probe => {
                Err(Refused { since: *since, next_probe: *next_probe, cause: cause.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The endpoint answered a request as one that is well does.
    pub(super) fn succeeded(&mut self, pass: Pass) {
        if pass.epoch != self.epoch {
            return;
        }
        if let State::Open { .. } = self.state {
            self.epoch += 1;
        }
        self.state = State::Closed { failures: 0 };
    }

    /// A request failed in a way that speaks against the endpoint.
    pub(super) fn failed(&mut self, pass: Pass, now: Duration, why: &str) {
        if pass.epoch != self.epoch {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if self.limit.is_some_and(|limit| *failures >= limit) {
                    let (next_probe, cause) = (now + self.probe_every, why.to_owned());
                    self.state = State::Open { since: now, next_probe, cause, probing: false };
                    self.epoch += 1;
                }
            }
            State::Open { cause, probing, .. } => {
                why.clone_into(cause);
                *probing = false;
            }
        }
    }

    /// What it is.
    pub(super) fn seen(&self) -> Seen {
        match &self.state {
            State::Closed { .. } => Seen::Closed,
            State::Open { probing: false, .. } => Seen::Open,
            State::Open { probing: true, .. } => Seen::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(Some(3), at(1000));
        for _ in 0..3 {
            let pass = breaker.admit(at(0)).unwrap();
            breaker.failed(pass, at(0), "refused");
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::new(Some(3), at(1000));
        for round in 0..100 {
            let pass = breaker.admit(at(round)).unwrap();
            match round % 3 {
                2 => breaker.succeeded(pass),
                _ => breaker.failed(pass, at(round), "refused"),
            }
        }
        assert_eq!(breaker.seen(), Seen::Closed);
        assert_eq!(opened().seen(), Seen::Open);
    }

    #[test]
    fn while_open_one_probe_goes_in_each_interval_whatever_becomes_of_it() {
        let mut breaker = opened();
        let refused = breaker.admit(at(999)).unwrap_err();
        assert_eq!(refused, Refused { since: at(0), next_probe: at(1000), cause: "refused".into() });
        let mut probes = 0;
        for now in (0..30_000).step_by(10) {
            let asked = breaker.would_admit(at(now)).is_ok();
            let pass = breaker.admit(at(now));
            assert_eq!(asked, pass.is_ok());
            if let Ok(pass) = pass {
                assert_eq!(pass.role, Role::Probe);
                probes += 1;
                // Some fail, some hang or are dropped.
                if probes % 2 == 0 {
                    breaker.failed(pass, at(now), "timed out");
                }
            }
        }
        assert_eq!(probes, 29);
        assert_eq!(breaker.admit(at(29_990)).unwrap_err().cause, "timed out");
        assert_eq!(breaker.seen(), Seen::HalfOpen);
    }

    #[test]
    fn a_probe_that_succeeds_closes_it() {
        let mut breaker = opened();
        let probe = breaker.admit(at(1000)).unwrap();
        assert_eq!(breaker.seen(), Seen::HalfOpen);
        breaker.succeeded(probe);
        assert_eq!(breaker.seen(), Seen::Closed);
        assert_eq!(breaker.admit(at(1001)).unwrap().role, Role::Ordinary);
    }

    #[test]
    fn outcomes_from_before_it_opened_or_closed_say_nothing() {
        let mut breaker = Breaker::new(Some(2), at(1000));
        let early: Vec<_> = (0..10).map(|_| breaker.admit(at(0)).unwrap()).collect();
        breaker.failed(early[0], at(1), "reset");
        breaker.failed(early[1], at(1), "reset");
        breaker.succeeded(early[2]);
        assert_eq!(breaker.seen(), Seen::Open);
        let probe = breaker.admit(at(1001)).unwrap();
        breaker.succeeded(probe);
        early[3..].iter().for_each(|pass| breaker.failed(*pass, at(1002), "timed out"));
        assert_eq!(breaker.seen(), Seen::Closed);
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let mut breaker = Breaker::new(None, at(1000));
        for _ in 0..1000 {
            let pass = breaker.admit(at(0)).unwrap();
            breaker.failed(pass, at(0), "refused");
        }
        assert_eq!(breaker.seen(), Seen::Closed);
    }
}
