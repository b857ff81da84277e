//! The worker process: it is called for each job of the queue.

use wasmhost_guest::job::{Failure, Job};

wasmhost_guest::job!(work);

/// A job is done when this returns `Ok`. An error has it tried again later, and `Failure::bury` never again.
fn work(job: Job) -> Result<(), Failure> {
    println!("job {}, attempt {}: {}", job.id, job.attempt, greeting(job.text()?));
    Ok(())
}

fn greeting(name: &str) -> String {
    format!("Hello, {}!", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_greeted() {
        assert_eq!(greeting("Ada\n"), "Hello, Ada!");
    }
}
