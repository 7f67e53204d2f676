//! Asking a docker credential helper: `docker-credential-NAME get`, bounded in time and size.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::{Credential, Secret};

/// Greatest answer of a helper that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Why a helper gave no login.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The name would leave the search path or is empty.
    #[error("{name:?} is no name of a credential helper")]
    Name {
        /// The name as written.
        name: String,
    },
    /// The program could not be started or spoken to.
    #[error("cannot run credential helper {program}")]
    Run {
        /// The program.
        program: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It did not answer in time and was ended.
    #[error("credential helper {program} gave no answer within {seconds} s")]
    Timeout {
        /// The program.
        program: String,
        /// The bound, in seconds.
        seconds: u64,
    },
    /// It has no login for the server.
    #[error("credential helper {program} has no login for {server}")]
    NotFound {
        /// The program.
        program: String,
        /// What it was asked for.
        server: String,
    },
    /// It failed otherwise. Its output is not shown, it may hold the login.
    #[error("credential helper {program} failed for {server} ({status})")]
    Failed {
        /// The program.
        program: String,
        /// What it was asked for.
        server: String,
        /// How it ended.
        status: String,
    },
    /// Its answer is not the JSON that is expected.
    #[error("credential helper {program} answered something that is not a login")]
    Answer {
        /// The program.
        program: String,
    },
}

/// Asks the helper `name` for the login of `server`; blocks for at most `timeout`. The helper is ended when it takes longer.
pub fn get(name: &str, server: &str, timeout: Duration) -> Result<Credential, HelperError> {
    if name.is_empty() || name.contains(['/', '\\', ' ']) || name.starts_with('.') {
        return Err(HelperError::Name {
            name: name.to_owned(),
        });
    }
    ask(&format!("docker-credential-{name}"), server, timeout)
}

fn ask(program: &str, server: &str, timeout: Duration) -> Result<Credential, HelperError> {
    let program = program.to_owned();
    let run = |source| HelperError::Run {
        program: program.clone(),
        source,
    };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(run)?;
    if let Some(mut input) = child.stdin.take() {
        // A helper may answer without reading; a closed pipe is no failure.
        drop(input.write_all(server.as_bytes()));
    }
    let (sender, receiver) = mpsc::channel();
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        let read = output.map_or(Ok(0), |output| {
            output.take(MAX_ANSWER).read_to_end(&mut answer)
        });
        // The receiver is gone when the time is over; then nobody wants the answer.
        drop(sender.send(read.map(|_| answer)));
    });
    let answer = receiver.recv_timeout(timeout);
    if answer.is_err() {
        child.kill().map_err(run)?;
    }
    let status = child.wait().map_err(run)?;
    let Ok(answer) = answer else {
        return Err(HelperError::Timeout {
            program,
            seconds: timeout.as_secs(),
        });
    };
    drop(reader.join());
    let answer = answer.map_err(run)?;
    if !status.success() {
        let server = server.to_owned();
        // The words that Docker's library of helpers has for it, on stdout.
        let none = String::from_utf8_lossy(&answer).contains("credentials not found");
        return Err(if none {
            HelperError::NotFound { program, server }
        } else {
            HelperError::Failed {
                program,
                server,
                status: status.to_string(),
            }
        });
    }
    read_answer(&answer).ok_or(HelperError::Answer { program })
}

/// The helper's answer: `{"Username": ..., "Secret": ...}`, where the user name `<token>` marks an identity token.
fn read_answer(answer: &[u8]) -> Option<Credential> {
    let value: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let username = value.get("Username")?.as_str()?;
    let secret = Secret::from(value.get("Secret")?.as_str()?);
    Some(match username {
        "<token>" => Credential::IdentityToken(secret),
        _ => Credential::Basic {
            username: username.to_owned(),
            password: secret,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_logins_and_tokens() {
        let login = |answer: &str| read_answer(answer.as_bytes());
        assert_eq!(
            login(r#"{"ServerURL":"x","Username":"bob","Secret":"pw"}"#),
            Some(Credential::basic("bob", "pw"))
        );
        assert_eq!(
            login(r#"{"Username":"<token>","Secret":"t"}"#),
            Some(Credential::IdentityToken("t".into()))
        );
        assert_eq!(login("credentials not found in native keychain"), None);
    }

    #[test]
    fn programs_that_answer_refuse_fail_and_never_end() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("towline-helper-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let asked = |name: &str, script: &str, seconds| {
            let path = folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let got = ask(
                path.to_str().unwrap(),
                "r.corp",
                Duration::from_secs(seconds),
            );
            match got {
                Ok(credential) => credential.to_string(),
                Err(error) => {
                    assert!(!error.to_string().contains("canary"), "{error}");
                    error.to_string()
                }
            }
        };
        let login = r#"read s; echo "{\"Username\":\"$s\",\"Secret\":\"canary\"}""#;
        assert_eq!(asked("good", login, 60), "user r.corp");
        let none = "echo 'credentials not found in native keychain'; exit 1";
        assert!(asked("none", none, 60).contains("has no login for r.corp"));
        let broken = "echo canary; echo canary >&2; exit 3";
        assert!(asked("broken", broken, 60).contains("failed for r.corp (exit status: 3)"));
        assert!(asked("odd", "echo canary", 60).contains("not a login"));
        assert!(asked("slow", "exec sleep 600", 1).contains("no answer within 1 s"));
        let endless = "while :; do echo canarycanarycanary || exit 0; done";
        assert!(!asked("endless", endless, 60).contains("within"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_cannot_leave_the_search_path() {
        for name in ["", "../x", "a/b", "a b"] {
            assert!(
                matches!(
                    get(name, "s", Duration::from_secs(1)),
                    Err(HelperError::Name { .. })
                ),
                "{name}"
            );
        }
        assert!(matches!(
            get("towline-no-such-helper", "s", Duration::from_secs(1)),
            Err(HelperError::Run { .. })
        ));
    }
}
