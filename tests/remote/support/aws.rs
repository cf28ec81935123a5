//! AWS's own Python client, boto3: sets up what tests need in the emulators, and is the peer of our client.

use super::peers::{Peer, ministack, moto, python, root};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Who asks, and where.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

/// What AWS's client says of a call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) status: u64,
}

impl Account {
    /// Whoever asks moto is let in.
    pub(crate) fn moto(region: &str) -> Self {
        Self::of(moto(), region, "testing", "testing")
    }

    /// The root user of ministack, whose signatures it does not look at: it makes users.
    pub(crate) fn ministack_root(region: &str) -> Self {
        let peer = ministack();
        Self::of(peer, region, peer.text("id"), peer.text("secret"))
    }

    /// A user of ministack who may do everything with keys, and whose signatures are verified.
    pub(crate) fn ministack(region: &str) -> Self {
        static USER: OnceLock<Account> = OnceLock::new();
        let everything = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        let user = USER.get_or_init(|| Self::ministack_root("us-east-1").user("keys", &everything));
        Self { region: region.to_owned(), ..user.clone() }
    }

    /// A new user under one statement of a policy.
    #[track_caller]
    pub(crate) fn user(&self, name: &str, statement: &Value) -> Self {
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        self.iam("CreateUser", json!({"UserName": name}));
        self.iam("PutUserPolicy", json!({"UserName": name, "PolicyName": "only", "PolicyDocument": policy}));
        let made = self.iam("CreateAccessKey", json!({"UserName": name}));
        let key = &made["AccessKey"];
        let (id, secret) = (text(key, "AccessKeyId").to_owned(), text(key, "SecretAccessKey").to_owned());
        Self { id, secret, ..self.clone() }
    }

    #[track_caller]
    fn iam(&self, operation: &str, parameters: Value) -> Value {
        self.call("iam", operation, parameters).unwrap_or_else(|error| panic!("{operation}: {error:?}"))
    }

    fn of(peer: &Peer, region: &str, id: &str, secret: &str) -> Self {
        Self {
            endpoint: peer.text("url").to_owned(),
            region: region.to_owned(),
            id: id.to_owned(),
            secret: secret.to_owned(),
            token: None,
        }
    }

    /// The same by another way: a proxy, for one.
    pub(crate) fn at(&self, endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..self.clone() }
    }

    /// Calls `operation` of `service` (`kms`, `iam`, `sts`). Bytes are base64 on both sides.
    pub(crate) fn call(&self, service: &str, operation: &str, parameters: Value) -> Result<Value, AwsError> {
        let answer = ask(&json!({
            "endpoint": self.endpoint, "region": self.region, "id": self.id, "secret": self.secret, "token": self.token,
            "service": service, "operation": operation, "parameters": parameters,
        }));
        match answer.get("ok") {
            Some(ok) => Ok(ok.clone()),
            None => Err(AwsError {
                code: text(&answer, "error").to_owned(),
                message: text(&answer, "message").to_owned(),
                status: answer["status"].as_u64().unwrap_or_default(),
            }),
        }
    }

    /// An operation of the KMS that must succeed.
    #[track_caller]
    pub(crate) fn kms(&self, operation: &str, parameters: Value) -> Value {
        self.call("kms", operation, parameters).unwrap_or_else(|error| panic!("{operation}: {error:?}"))
    }

    /// A new symmetric key; its ARN.
    #[track_caller]
    pub(crate) fn key(&self) -> String {
        self.key_with(json!({}))
    }

    /// A new key with parameters of CreateKey; its ARN.
    #[track_caller]
    pub(crate) fn key_with(&self, parameters: Value) -> String {
        text(&self.kms("CreateKey", parameters)["KeyMetadata"], "Arn").to_owned()
    }
}

#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

struct Boto {
    /// It ends when its standard input does, with this process at the latest.
    _process: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// One Python for the whole process, which ends with it, since its standard input does.
fn ask(job: &Value) -> Value {
    static BOTO: OnceLock<Mutex<Boto>> = OnceLock::new();
    let boto = BOTO.get_or_init(|| {
        let python = python().unwrap_or_else(|why| panic!("{why}"));
        let mut command = Command::new(python);
        command.arg(root().join("tests/peers/aws.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Neither credentials nor addresses of whoever runs the tests.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        let mut child = command.env("AWS_EC2_METADATA_DISABLED", "true").spawn().unwrap();
        let (jobs, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Mutex::new(Boto { _process: child, jobs, answers: BufReader::new(answers) })
    });
    // Nothing below can fail halfway but the program itself, which then answers nobody any more.
    let mut boto = boto.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(boto.jobs, "{job}").and_then(|()| boto.jobs.flush()).unwrap();
    let mut line = String::new();
    boto.answers.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("boto3 answered {line:?}: {error}"))
}
