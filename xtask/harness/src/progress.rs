//! Lines on the terminal that say what took how long.

use std::time::Instant;

use anyhow::Result;

/// Runs `work` and prints its time.
///
/// # Errors
/// What `work` returns.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = work()?;
    print(name, began);
    Ok(done)
}

/// Waits for `work` and prints its time.
///
/// # Errors
/// What `work` returns.
pub(crate) async fn timed<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let done = work.await?;
    print(name, began);
    Ok(done)
}

fn print(name: &str, began: Instant) {
    eprintln!("  {name:<24} {:>6.2} s", began.elapsed().as_secs_f64());
}
