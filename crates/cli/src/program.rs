//! One command that is run with this process's own streams: its end becomes this process's exit code.

use wasmhost_engine::{CallEnd, Engine, Shortage};
use wasmhost_host::{OneOff, ProgramEnd, StartError, run_program};

use crate::cache;
use crate::exit::{Exit, Failed, Outcome};
use crate::serve::{exit_of, runtime};
use crate::signals::early;

/// The words for what becomes of a program.
pub(crate) struct Words {
    /// Its name, as a person knows it.
    pub(crate) name: String,
    /// The option or key that grants it more memory.
    pub(crate) memory: String,
    /// The option or key that sets its time.
    pub(crate) timeout: String,
    /// The key that sets its CPU time.
    pub(crate) cpu: String,
}

/// Runs a program to its end, or until `cut_short` gives an exit code.
pub(crate) fn run(
    one_off: OneOff,
    words: &Words,
    cut_short: impl Future<Output = std::io::Result<u8>>,
) -> Outcome {
    // Signals do to a program what they do to any.
    early::let_go();
    let cache = cache::from_environment()?;
    let runtime = runtime().on_thread_start(Engine::prepare_thread).build()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run_program(one_off, cache) => ended.map_err(|err| not_started(err, words)),
            code = cut_short => Ok(ProgramEnd::Ended(CallEnd::Exited(i32::from(code?)))),
        }
    });
    // A read of the standard input may be under way, which nothing can end.
    runtime.shutdown_background();
    outcome(ended?, words)
}

fn not_started(err: StartError, words: &Words) -> Failed {
    let exit = exit_of(&err);
    match err {
        StartError::Load { err, .. } => Failed::new(exit, format!("{} {err}", words.name)),
        err => Failed::new(exit, err),
    }
}

fn outcome(ended: ProgramEnd, words: &Words) -> Outcome {
    let Words { name, memory, timeout, cpu } = words;
    let ended = match ended {
        ProgramEnd::Ended(ended) => ended,
        ProgramEnd::NeverStarted(spent) => {
            let message =
                format!("{name} took longer to start than a program may, and was ended (ran {spent})");
            return Err(Failed::new(Exit::CutOff, message));
        }
    };
    match ended {
        // The system takes the lowest eight bits, too.
        CallEnd::Returned(code) | CallEnd::Exited(code) => Ok(Exit::OfProgram(code.to_le_bytes()[0])),
        CallEnd::Trap(backtrace) => Err(Failed::new(Exit::Trapped, format!("{name} trapped: {backtrace}"))),
        CallEnd::OutOfMemory(shortage) => {
            let advice = match shortage {
                Shortage::Memory { .. } => format!(": {memory} grants more"),
                // No setting does.
                Shortage::Table { .. } | Shortage::System { .. } => String::new(),
            };
            let message = format!("{name} ran out of the memory granted to it ({shortage}){advice}");
            Err(Failed::new(Exit::Trapped, message))
        }
        CallEnd::Timeout(spent) => Err(Failed::new(
            Exit::CutOff,
            format!("{name} took longer than its {timeout}, and was ended (ran {spent})"),
        )),
        CallEnd::OutOfCpu(spent) => Err(Failed::new(
            Exit::CutOff,
            format!("{name} computed for longer than its {cpu}, and was ended (computed {spent})"),
        )),
        end @ (CallEnd::Interrupted | CallEnd::Host(_) | CallEnd::ErrorCode(_) | CallEnd::Refused(_)) => {
            Err(Failed::new(Exit::Failed, format!("{name}: {}", end.summary())))
        }
    }
}
