//! The program inside the lab's images: a static ELF of a few kilobytes without libc.
//!
//! The tool is named by `argv[0]` (a link such as `/bin/sleep`) or by the first argument. Tools that
//! wait end on TERM or INT.
//!
//! | tool | does |
//! | --- | --- |
//! | `hello [TEXT...]` | prints a line, waits for TERM, exits 0 |
//! | `echo TEXT...`, `stderr TEXT...` | prints a line on stdout, on stderr |
//! | `sleep SECONDS\|infinity` | exits 0; on TERM 143 |
//! | `stubborn [SECONDS]` | ignores TERM |
//! | `exit N`, `true`, `false`, `crash` | exits N, 0, 1, by SIGSEGV |
//! | `cat [PATH...]`, `ls [PATH]`, `exists PATH`, `touch PATH...`, `write PATH TEXT...` | files |
//! | `env`, `id`, `hostname` | environment, `uid= gid= groups=`, node name of the UTS namespace |
//! | `flood BYTES`, `alloc BYTES` | writes so many bytes; takes and touches so much memory (`k`, `m`, `g` allowed) |
//! | `http PORT` | answers `ok`; 503 for `/fail...` or while the file `/unhealthy` exists |
//! | `get IPV4 PORT [PATH]` | prints the whole HTTP answer, exits 0 on 200 |
//! | `do TOOL ARGS , TOOL ARGS ...` | runs tools in turn until one fails |
//!
//! An unknown tool exits 127.

/// The program, an ELF for the target's architecture (`x86_64` or `aarch64`).
pub static BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest"));

/// Every tool that the program answers to.
pub const TOOLS: &[&str] = &[
    "hello", "echo", "stderr", "sleep", "stubborn", "exit", "cat", "env", "id", "hostname", "ls",
    "touch", "write", "flood", "alloc", "http", "get", "exists", "true", "false", "crash", "do",
];

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    use std::process::{Command, Output};

    use super::*;

    fn run(arguments: &[&str]) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guest");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&path)
            .unwrap();
        file.write_all(BINARY).unwrap();
        drop(file);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Another test's fork may hold the file open for writing for a moment (ETXTBSY).
        for _ in 0..50 {
            match Command::new(&path)
                .args(arguments)
                .env_clear()
                .env("A", "b")
                .output()
            {
                Ok(output) => return output,
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the guest stayed busy");
    }

    #[test]
    fn is_small_and_static() {
        assert!(BINARY.starts_with(b"\x7fELF"));
        assert!(BINARY.len() < 16 * 1024, "{} bytes", BINARY.len());
        assert!(
            !BINARY.windows(9).any(|w| w == b"ld-linux-"),
            "needs a dynamic loader"
        );
    }

    #[test]
    fn runs_its_tools() {
        assert_eq!(run(&["echo", "a", "b"]).stdout, b"a b\n");
        assert_eq!(run(&["stderr", "oops"]).stderr, b"oops\n");
        assert_eq!(run(&["env"]).stdout, b"A=b\n");
        assert_eq!(run(&["exit", "42"]).status.code(), Some(42));
        assert_eq!(run(&["nonsense"]).status.code(), Some(127));
        assert_eq!(run(&["flood", "1k"]).stdout.len(), 1024);
        let both = run(&["do", "echo", "one", ",", "exit", "3", ",", "echo", "never"]);
        assert_eq!(
            (both.stdout.as_slice(), both.status.code()),
            (b"one\n".as_slice(), Some(3))
        );
        assert_eq!(run(&["cat", "/nowhere"]).status.code(), Some(1));
    }

    #[test]
    fn every_listed_tool_exists() {
        let source = include_str!("../guest/guest.c");
        for tool in TOOLS {
            assert!(
                source.contains(&format!("{{ \"{tool}\", tool_{tool} }}")),
                "{tool}"
            );
        }
    }
}
