//! A helper program that prints a token, as kubectl's credential plugins do.
//!
//! It is started without a shell, with the environment that the configuration gives and nothing else, and with limits of
//! time and output. What it writes to standard error is dropped: it may hold anything.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::Deserialize;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time,
};
use zeroize::Zeroizing;

use super::{
    Fetched,
    exec_output::{Output, read},
};
use crate::{
    duration::Span,
    invalid::Invalid,
    secret::SecretRef,
    token::{clock::Clock, error::FetchError, http::MAX_ANSWER, kept_secret::KeptSecret},
};

/// The keys of a credential of type `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExecConfig {
    /// The program, as an absolute path, and its arguments; required. No shell reads it.
    pub command: Vec<String>,
    /// What the program prints.
    #[serde(default)]
    pub output: Output,
    /// The program's environment; it inherits nothing.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Further variables of its environment, whose values are secrets.
    #[serde(default)]
    pub secret_environment: BTreeMap<String, SecretRef>,
    /// How long the program may take, at most 10 s.
    #[serde(default = "default_time_limit")]
    pub time_limit: Span,
}

fn default_time_limit() -> Span {
    Span::secs(8)
}

/// What kubectl tells a plugin about itself.
const EXEC_INFO: (&str, &str) = (
    "KUBERNETES_EXEC_INFO",
    r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}"#,
);

/// A helper program that is ready to be started.
pub(in crate::token) struct Exec {
    program: PathBuf,
    arguments: Vec<String>,
    output: Output,
    environment: BTreeMap<String, String>,
    secrets: BTreeMap<String, KeptSecret>,
    time_limit: Span,
    clock: Clock,
}

impl Exec {
    /// Checks the section; the program and its secrets must be there now.
    pub(in crate::token) fn build(config: &ExecConfig, clock: Clock) -> Result<Self, Invalid> {
        let Some((program, arguments)) = config.command.split_first() else {
            return Err(Invalid::new("command", "is empty").hint("write `command = [\"/path/to/program\"]`"));
        };
        let program = PathBuf::from(program);
        executable(&program)?;
        if config.time_limit > Span::secs(10) || config.time_limit == Span::secs(0) {
            return Err(Invalid::new("time_limit", "is not between 1 ms and 10 s"));
        }
        let names = config.environment.keys().map(|name| ("environment", name));
        for (key, name) in
            names.chain(config.secret_environment.keys().map(|name| ("secret_environment", name)))
        {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Invalid::new(key, "holds a name that no variable can have"));
            }
        }
        let holds_nul = |text: &String| text.contains('\0');
        if arguments.iter().any(holds_nul) || config.environment.values().any(holds_nul) {
            return Err(Invalid::new("", "arguments and variables cannot hold a zero byte"));
        }
        let secret = |(name, reference): (&String, &SecretRef)| {
            let kept = KeptSecret::build(reference)
                .map_err(|invalid| invalid.under(&format!("secret_environment.{name}")))?;
            Ok((name.clone(), kept))
        };
        Ok(Self {
            program,
            arguments: arguments.to_vec(),
            output: config.output,
            environment: config.environment.clone(),
            secrets: config.secret_environment.iter().map(secret).collect::<Result<_, _>>()?,
            time_limit: config.time_limit,
            clock,
        })
    }

    /// Runs the program once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let output = match time::timeout(self.time_limit.0, self.run()).await {
            Ok(output) => output?,
            Err(_) => return Err(FetchError::Helper("did not end in time")),
        };
        let issued = read(self.output, &output, self.clock.now().wall)?;
        Ok(Fetched { issued, narrowed: false, skew: None })
    }

    /// Whether a secret has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        // Every one is looked at: no short cut.
        let mut changed = false;
        for secret in self.secrets.values_mut() {
            changed |= secret.look();
        }
        changed
    }

    async fn run(&self) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .envs(self.secrets.iter().map(|(name, secret)| (name, secret.value().expose())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that what the program starts can be ended with it.
            .process_group(0)
            .kill_on_drop(true);
        if self.output == Output::ExecCredential {
            command.env(EXEC_INFO.0, EXEC_INFO.1);
        }
        let child = command.spawn().map_err(|_| FetchError::Helper("could not be started"))?;
        let mut group = Group(child);
        let stdout = group.0.stdout.take().expect("standard output is piped");
        let mut output = Zeroizing::new(Vec::new());
        let broken = |_| FetchError::Helper("could not be read from");
        stdout.take(MAX_ANSWER as u64 + 1).read_to_end(&mut output).await.map_err(broken)?;
        if output.len() > MAX_ANSWER {
            return Err(FetchError::Helper("prints more than 256 KiB"));
        }
        match group.0.wait().await {
            Ok(status) if status.success() => Ok(output),
            Ok(_) => Err(FetchError::Helper("ended with a failure")),
            Err(error) => Err(broken(error)),
        }
    }
}

/// A program and whatever it has started; all of it ends with this, unless the program has ended by itself before.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Once it has been waited for, it has no number any more, and another process may have got it.
        let pid = self.0.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended in this moment, which is what was wanted.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

fn executable(program: &Path) -> Result<(), Invalid> {
    let wrong = |why: &str, hint: &str| {
        Err(Invalid::new("command", format!("`{}` {why}", program.display())).hint(hint))
    };
    if !program.is_absolute() {
        return wrong("is not an absolute path", "write the whole path; `PATH` is not searched");
    }
    match fs::metadata(program) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Ok(()),
        Ok(_) => wrong("is not an executable file", "name the program itself, and run `chmod +x` on it"),
        Err(error) => wrong(
            &format!("cannot be found: {}", error.kind()),
            "correct the path; in a container, put the program into the image or mount it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tokio::time::Instant;

    use super::*;
    use crate::token::answer::{Issued, Lifetime};

    fn exec(output: Output, script: &str, time_limit: Span) -> Exec {
        let config = ExecConfig {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            output,
            environment: BTreeMap::from([("GIVEN".to_owned(), "given".to_owned())]),
            secret_environment: BTreeMap::new(),
            time_limit,
        };
        Exec::build(&config, Clock::with_wall(|| UNIX_EPOCH + Duration::from_secs(1_795_582_355))).unwrap()
    }

    async fn run(output: Output, script: &str) -> Result<Issued, FetchError> {
        exec(output, script, Span::secs(8)).fetch().await.map(|fetched| fetched.issued)
    }

    #[tokio::test]
    async fn each_kind_of_output_is_a_token_with_a_lifetime() {
        let credential = "echo '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
                          \"status\":{\"token\":\"t\",\"expirationTimestamp\":\"2026-11-25T04:53:35Z\"}}'";
        let minute = Lifetime::Known(Duration::from_secs(60));
        for (output, script, lifetime) in [
            (Output::Text, "echo t", Lifetime::Unknown),
            (Output::Oauth, "echo '{\"access_token\":\"t\",\"expires_in\":60}'", minute),
            (Output::ExecCredential, credential, minute),
        ] {
            let issued = run(output, script).await.unwrap();
            assert_eq!((issued.token.expose(), issued.lifetime), ("t", lifetime));
        }
    }

    #[tokio::test]
    async fn a_program_sees_its_own_environment_only() {
        let issued =
            run(Output::Text, "echo \"$GIVEN-$HOME-$CARGO_PKG_NAME-$KUBERNETES_EXEC_INFO\"").await.unwrap();
        assert_eq!(issued.token.expose(), "given---");
        let issued = run(Output::ExecCredential, "exit 1").await;
        assert_eq!(issued.unwrap_err(), FetchError::Helper("ended with a failure"));
    }

    #[tokio::test]
    async fn whatever_else_a_program_does_is_an_error_without_its_output() {
        for (output, script) in [
            (Output::Text, "echo Hunter2; exit 3"),
            (Output::Text, "true"),
            (Output::Text, "echo a b"),
            (Output::Text, "printf '\\377'"),
            (Output::Text, "head -c 300000 /dev/zero"),
            (Output::Oauth, "echo Hunter2"),
            (Output::ExecCredential, "echo '{\"kind\":\"ExecCredential\"}'"),
            (Output::Text, "kill -9 $$"),
        ] {
            let error = run(output, script).await.unwrap_err();
            assert!(matches!(error, FetchError::Helper(_)), "{script}");
            assert!(!error.to_string().contains("Hunter2"));
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_what_it_started() {
        // The child of the shell holds the other end: the pipe reads its end once that has been ended too.
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let script = format!("mkfifo {0}; exec 3> {0}; echo begun >&3; sleep 600; exit", pipe.display());
        let mut exec = exec(Output::Text, &script, Span::secs(2));
        let begun = Instant::now();
        let reader = tokio::task::spawn_blocking(move || {
            while !pipe.exists() {
                std::thread::yield_now();
            }
            // Opened once: a second time could come after the last writer has gone, and would wait for ever.
            fs::read_to_string(&pipe).unwrap()
        });
        assert_eq!(exec.fetch().await.unwrap_err(), FetchError::Helper("did not end in time"));
        assert_eq!(reader.await.unwrap(), "begun\n");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_program_is_an_executable_file_by_its_whole_path() {
        for command in [vec![], vec!["sh"], vec!["/nonexistent/x"], vec!["/etc/passwd"], vec!["/tmp"]] {
            let config = ExecConfig {
                command: command.iter().map(|part| (*part).to_owned()).collect(),
                output: Output::Text,
                environment: BTreeMap::new(),
                secret_environment: BTreeMap::new(),
                time_limit: default_time_limit(),
            };
            let Err(invalid) = Exec::build(&config, Clock::default()) else { panic!("{command:?}") };
            assert_eq!(invalid.key(), "command", "{command:?}");
        }
    }
}
