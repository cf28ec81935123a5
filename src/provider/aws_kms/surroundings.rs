//! What the sources of credentials may touch: the environment, files, HTTP, and, if asked for, a program.

use crate::error::{Error, Result};
use crate::provider::http::body::wiped;
use crate::provider::http::endpoint::{Endpoint, is_loopback};
use crate::provider::http::transport::{ExchangeLimits, HttpTransport};
use crate::worker;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use reqsign_core::{CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Variables: the process's, as they are at the time, or others in their place. An empty one counts as not set.
#[derive(Clone, Default)]
pub(super) struct Environment(Option<Arc<BTreeMap<String, Zeroizing<String>>>>);

impl Environment {
    /// These variables, and none of the process's.
    pub(super) fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let fixed = variables.into_iter().map(|(name, value)| (name.into(), Zeroizing::new(value.into())));
        Self(Some(Arc::new(fixed.collect())))
    }

    /// Whether it is set, told without a copy of the value in our hands.
    pub(super) fn has(&self, name: &str) -> bool {
        match &self.0 {
            None => std::env::var_os(name).is_some_and(|value| !value.is_empty()),
            Some(fixed) => fixed.get(name).is_some_and(|value| !value.is_empty()),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            None => std::env::var(name).ok(),
            Some(fixed) => fixed.get(name).map(|value| value.to_string()),
        };
        value.filter(|value| !value.is_empty())
    }

    /// Whether a switch is on.
    pub(super) fn says(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The address that is configured for a service (`KMS`, `STS`), behind the name of the variable that says so.
    pub(super) fn endpoint_of(&self, service: &str) -> Option<(String, String)> {
        if self.says("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
            return None;
        }
        let names = [format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL".to_owned()];
        names.into_iter().find_map(|name| self.text(&name).map(|address| (name, address)))
    }

    /// Whatever of it decides where credentials come from, sorted.
    pub(super) fn aws_variables(&self) -> Vec<(String, Zeroizing<String>)> {
        let mut all: Vec<(String, Zeroizing<String>)> = match &self.0 {
            None => std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| is_read(name))
                .map(|(name, value)| (name, Zeroizing::new(value)))
                .collect(),
            Some(fixed) => fixed
                .iter()
                .filter(|(name, _)| is_read(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        };
        all.retain(|(_, value)| !value.is_empty());
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

/// Names only: values are credentials.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Environment(the process's)"),
            Some(fixed) => write!(f, "Environment({:?})", fixed.keys()),
        }
    }
}

impl Env for Environment {
    fn var(&self, key: &str) -> Option<String> {
        self.text(key).filter(|_| is_read(key))
    }

    fn vars(&self) -> HashMap<String, String> {
        self.aws_variables().into_iter().map(|(name, value)| (name, value.to_string())).collect()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.text("HOME").map(PathBuf::from)
    }
}

fn is_read(name: &str) -> bool {
    name == "HOME" || (name.starts_with("AWS_") && name != SSO_ENDPOINT)
}

/// Whether the program of a profile's `credential_process` is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Programs {
    #[default]
    Refused,
    Run,
}

/// What `reqsign` gets to work with.
pub(super) fn context(environment: &Environment, transport: &Arc<dyn HttpTransport>, programs: Programs) -> Context {
    let sender = Sender { transport: transport.clone(), environment: environment.clone() };
    let context = Context::new().with_env(environment.clone()).with_file_read(Files).with_http_send(sender);
    match programs {
        Programs::Refused => context,
        Programs::Run => context.with_command_execute(Commands),
    }
}

/// Files, read on a thread of their own.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let path = PathBuf::from(path);
        let read = worker::run("envelock-aws-file", move || Ok(std::mem::take(&mut *read_file(&path)?)));
        read.await.map_err(|error| reqsign_core::Error::config_invalid(error.to_string()))
    }
}

/// A whole file that is not too long to hold credentials, into memory that is taken once.
pub(super) fn read_file(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut file = std::fs::File::open(path)?;
    let length = usize::try_from(file.metadata()?.len().min(FILE_MAX)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.by_ref().take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        0..=FILE_MAX => Ok(bytes),
        _ => Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge)),
    }
}

/// A profile's program, run on a thread of its own without a shell.
#[derive(Debug)]
struct Commands;

impl CommandExecute for Commands {
    async fn command_execute(&self, program: &str, args: &[&str]) -> reqsign_core::Result<CommandOutput> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let run = worker::run("envelock-aws-program", move || Ok(output(command, PROGRAM_TIME)?));
        let (status, stdout) = run.await.map_err(|error| reqsign_core::Error::config_invalid(error.to_string()))?;
        Ok(CommandOutput { status, stdout, stderr: Vec::new() })
    }
}

/// What a program writes, as much as is read of a file; it is killed when its time is up, or when it writes more.
fn output(mut command: Command, time: Duration) -> std::io::Result<(i32, Vec<u8>)> {
    let ends = Instant::now() + time;
    let mut child = command.spawn()?;
    let outcome = output_until(&mut child, ends);
    if outcome.is_err() {
        // Waited for whatever becomes of that, since what has ended and is not waited for stays in the list of processes.
        let _ = child.kill();
        child.wait()?;
    }
    outcome
}

/// The same of a program that runs; it is the caller's to end it if this fails.
fn output_until(child: &mut Child, ends: Instant) -> std::io::Result<(i32, Vec<u8>)> {
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let (sender, receiver) = std::sync::mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::Builder::new().name("envelock-aws-output".into()).spawn(move || {
            let mut bytes = Vec::with_capacity(4_096);
            let read = stdout.take(FILE_MAX + 1).read_to_end(&mut bytes);
            let _ = sender.send(read.map(|_| bytes));
        })?;
    }
    let bytes = match receiver.recv_timeout(ends.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) if bytes.len() as u64 <= FILE_MAX => bytes,
        _ => return Err(late()),
    };
    // It has closed its output, and most end by that; one need not.
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status.code().unwrap_or(-1), bytes));
        }
        if Instant::now() >= ends {
            return Err(late());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The way to STS, SSO, and the credential services of containers and instances.
#[derive(Debug)]
struct Sender {
    transport: Arc<dyn HttpTransport>,
    environment: Environment,
}

impl HttpSend for Sender {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let refused = |error: Error| reqsign_core::Error::config_invalid(error.to_string());
        let (mut parts, body) = request.into_parts();
        parts.uri = self.address(parts.uri).map_err(refused)?;
        // Tokens of containers, of instances and of SSO among them.
        for (name, value) in &mut parts.headers {
            if !matches!(*name, CONTENT_TYPE | CONTENT_LENGTH | HOST) {
                value.set_sensitive(true);
            }
        }
        let limits = match is_metadata(parts.uri.host().unwrap_or_default()) {
            // It is on this machine or link, or it is not there at all.
            true => ExchangeLimits {
                connect: Duration::from_secs(1),
                total: Duration::from_secs(5),
                ..ExchangeLimits::default()
            },
            false => ExchangeLimits::default(),
        };
        let response = self
            .transport
            .send(http::Request::from_parts(parts, body), &limits)
            .await
            .map_err(|error| reqsign_core::Error::unexpected("no answer").with_source(error).set_retryable(true))?;
        let (parts, body) = response.into_parts();
        // The answer is credentials: a copy that is wiped, and the transport's own where nobody else has it.
        let kept = wiped(Zeroizing::new(body.to_vec()));
        wipe(body);
        Ok(http::Response::from_parts(parts, kept))
    }
}

impl Sender {
    /// Where a request really goes: STS may have an address of the user's. Without TLS only to this machine and to the
    /// link-local addresses of AWS's credential services.
    fn address(&self, uri: http::Uri) -> Result<http::Uri> {
        let host = uri.host().unwrap_or_default();
        let given = host.starts_with("sts.").then(|| self.environment.endpoint_of("STS")).flatten();
        if let Some((name, given)) = given {
            let rest = uri.path_and_query().map_or("/", |it| it.as_str());
            let moved = format!("{}{rest}", Endpoint::named(&name, &given, false)?.as_str());
            return moved.parse().map_err(|_| Error::invalid_input("the address of STS is not an address"));
        }
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if is_metadata(host) || is_loopback(host) => Ok(uri),
            _ => Err(Error::invalid_input(
                "credentials are not asked for without TLS, except from this machine and AWS's link-local addresses",
            )),
        }
    }
}

fn is_metadata(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|ip| METADATA.iter().any(|known| *known == ip.to_string()))
}

/// Wipes an answer's bytes, unless somebody else holds them too.
pub(super) fn wipe(bytes: Bytes) {
    use zeroize::Zeroize;
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

/// The credential services of ECS, of EKS and of EC2, on IPv4 and IPv6.
const METADATA: &[&str] = &["169.254.170.2", "169.254.170.23", "169.254.169.254", "fd00:ec2::23", "fd00:ec2::254"];
/// Where `reqsign` would send an SSO login, and AWS's own programs would not.
const SSO_ENDPOINT: &str = "AWS_SSO_ENDPOINT";
const PROGRAM_TIME: Duration = Duration::from_secs(50);
/// How often it is looked whether a program without output has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longest file of credentials, in bytes.
const FILE_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::aws_kms::tests::fake::Fake;

    fn sender(variables: &[(&str, &str)]) -> Sender {
        Sender { transport: Fake::new().shared(), environment: Environment::of(variables.iter().copied()) }
    }

    fn goes_to(variables: &[(&str, &str)], uri: &str) -> Option<String> {
        sender(variables).address(uri.parse().unwrap()).ok().map(|uri| uri.to_string())
    }

    #[test]
    fn credentials_are_asked_for_over_tls_or_on_this_machine() {
        for good in [
            "https://sts.eu-central-1.amazonaws.com/",
            "http://169.254.170.2/v2/credentials/x",
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:81/role",
            "http://localhost/role",
        ] {
            assert_eq!(goes_to(&[], good).as_deref(), Some(good));
        }
        for bad in ["http://example.com/role", "http://10.0.0.1/role", "http://169.254.170.2.example.com/"] {
            assert_eq!(goes_to(&[], bad), None, "{bad}");
        }
    }

    #[test]
    fn sts_is_where_the_environment_says() {
        let there = [("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:4566")];
        let moved = goes_to(&there, "https://sts.eu-central-1.amazonaws.com/?Action=AssumeRole");
        assert_eq!(moved.as_deref(), Some("http://127.0.0.1:4566/?Action=AssumeRole"));
        assert_eq!(goes_to(&there, "https://portal.sso.x.amazonaws.com/").unwrap().as_bytes()[8], b'p');
    }

    #[test]
    fn a_program_that_hangs_or_floods_is_killed() {
        let run = |text: &str, time: u64| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", text]).stdin(Stdio::null()).stdout(Stdio::piped());
            output(command, Duration::from_millis(time)).map_err(|error| error.kind())
        };
        assert_eq!(run("echo yes; exit 3", 20_000), Ok((3, b"yes\n".to_vec())));
        assert_eq!(run("exec sleep 60", 100), Err(std::io::ErrorKind::TimedOut));
        assert_eq!(run("exec yes", 20_000), Err(std::io::ErrorKind::TimedOut));
    }

    #[test]
    fn a_program_that_closes_its_output_and_goes_on_is_killed_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("process");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\"; echo yes; exec >&-; exec sleep 60"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let begun = Instant::now();
        let outcome = output(command, Duration::from_secs(2)).map_err(|error| error.kind());
        assert_eq!(outcome, Err(std::io::ErrorKind::TimedOut));
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        // Nor is it there as one that has ended and nobody asked about.
        let process = std::fs::read_to_string(&file).unwrap();
        let mut look = Command::new("/bin/sh");
        let is_there = look.args(["-c", "kill -0 $0", process.trim()]).stderr(Stdio::null()).status().unwrap();
        assert!(!is_there.success(), "{process}");
    }

    #[test]
    fn an_empty_variable_is_not_set_and_no_value_is_shown() {
        let environment =
            Environment::of([("AWS_SESSION_TOKEN", ""), ("AWS_SECRET_ACCESS_KEY", "hush"), ("PATH", "x")]);
        assert_eq!(environment.text("AWS_SESSION_TOKEN"), None);
        assert_eq!(environment.vars().keys().collect::<Vec<_>>(), ["AWS_SECRET_ACCESS_KEY"]);
        assert!(!format!("{environment:?}").contains("hush"));
    }
}
