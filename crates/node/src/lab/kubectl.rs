//! Printed commands typed into a shell, with the real kubectl where there is one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Account, LabError};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl of this machine.
pub fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.is_file())
}

/// Whether this machine has the other programs that a printed command uses.
pub(super) fn can_run(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    !command.contains(" | jq ") || has("jq")
}

/// What a person puts in place of the words that are theirs.
#[derive(Debug, Clone)]
pub(super) struct Words<'a> {
    pub(super) account: &'a Account,
    pub(super) image: String,
}

impl Words<'_> {
    /// A command as it is typed.
    fn filled(&self, command: &str) -> String {
        command
            .replace("=USER", &format!("={}", self.account.username))
            .replace("=PASSWORD", &format!("={}", self.account.password))
            .replace(
                "--arg user USER",
                &format!("--arg user {}", self.account.username),
            )
            .replace(
                "--arg password PASSWORD",
                &format!("--arg password {}", self.account.password),
            )
            .replace("=IMAGE", &format!("={}", self.image))
    }

    /// The same as it may be shown.
    pub(super) fn shown(&self, command: &str) -> String {
        let hidden = command
            .replace("=PASSWORD", "=***")
            .replace("--arg password PASSWORD", "--arg password ***");
        format!("$ {}", self.filled(&hidden))
    }
}

/// Runs a command in a shell, as it was printed.
pub(super) async fn typed(
    command: &str,
    words: &Words<'_>,
    kubeconfig: &Path,
) -> Result<(), LabError> {
    let running = Command::new("sh")
        .args(["-ec", &words.filled(command)])
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = |why: String| LabError::Typed {
        command: words.shown(command),
        why,
    };
    let output = tokio::time::timeout(PATIENCE, running)
        .await
        .map_err(|_| failed(format!("not within {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            username: "pam".into(),
            password: "secret".into(),
        }
    }

    #[tokio::test]
    async fn a_printed_command_runs_with_the_persons_words_and_shows_no_password() {
        let account = account();
        let words = Words {
            account: &account,
            image: "r.test/a:v1".into(),
        };
        let printed = "test --user=USER --password=PASSWORD x=IMAGE";
        assert_eq!(
            words.shown(printed),
            "$ test --user=pam --password=*** x=r.test/a:v1"
        );
        let home = Path::new("/nowhere");
        let well = typed("echo a=IMAGE | grep -qx a=r.test/a:v1", &words, home).await;
        assert!(well.is_ok(), "{well:?}");
        let error = typed("echo no >&2; false", &words, home).await.unwrap_err();
        let chain = towline_sys::task::chain(&error);
        assert!(chain.contains("no"), "{chain}");
    }
}
