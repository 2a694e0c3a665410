//! Starting a program and saying by name what it did wrong.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use crate::failure::{Exit, Failure};

/// Runs a program to its end; any end but success is a failure that names the command line.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| not_started(command, error))?;
    if status.success() { Ok(()) } else { Err(ended_badly(command, status)) }
}

/// Runs a program and gives what it printed on standard output and, apart, on standard error.
pub(crate) fn read(command: &mut Command) -> Result<Printed, Failure> {
    let output = command.output().map_err(|error| not_started(command, error))?;
    Ok(Printed {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Printed {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

/// The command line as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '(', '*']) { format!("'{word}'") } else { word.into_owned() }
    }));
    words.join(" ")
}

/// The failure of a program that ended with `status`.
pub(crate) fn ended_badly(command: &Command, status: ExitStatus) -> Failure {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let failure = Failure::new(format!("`{}` {how}", line(command)));
    match code {
        Some(code) => failure.exit(Exit::Passed(code)),
        None => failure,
    }
}

fn not_started(command: &Command, error: std::io::Error) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    Failure::missing(format!("`{}` could not be started", line(command)))
        .because(error)
        .next(format!("check that `{program}` is installed and in PATH"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::run;
    use crate::failure::Exit;

    #[test]
    fn the_exit_code_of_a_driven_program_is_passed_on() {
        let failure = run(Command::new("sh").args(["-c", "exit 7"])).unwrap_err();
        assert_eq!(failure.status(), Exit::Passed(7));
        assert_eq!(failure.to_string(), "`sh -c 'exit 7'` ended with exit code 7");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = run(&mut Command::new("no-such-program-at-all")).unwrap_err();
        assert_eq!(failure.status(), Exit::Missing);
        assert!(failure.to_string().contains("no-such-program-at-all"), "{failure}");
    }
}
