//! Controllers that run beside a test: what goes wrong with one of them is not lost.

use std::future::Future;
use std::panic::resume_unwind;

use futures::FutureExt;
use tokio::task::{JoinError, JoinHandle, unconstrained};

use super::{ControllerOptions, run};
use crate::server::ApiServer;

/// Starts the controllers on the present runtime. They end with what is returned, and a controller that panics lets its
/// owner panic: keep it until the end of the test.
///
/// # Panics
/// Without a Tokio runtime.
pub fn start(server: ApiServer, options: ControllerOptions) -> RunningControllers {
    RunningControllers(Some(tokio::spawn(run(server, options))))
}

/// Controllers that run until this is dropped. If one of them has panicked, dropping it panics, too, so that the test that
/// started them fails.
#[derive(Debug)]
#[must_use = "controllers end when this is dropped"]
pub struct RunningControllers(Option<JoinHandle<()>>);

impl RunningControllers {
    /// Waits for something as long as all controllers run.
    ///
    /// # Panics
    /// With the panic of a controller, as soon as there is one.
    pub async fn during<T>(&mut self, body: impl Future<Output = T>) -> T {
        let Some(task) = &mut self.0 else { return body.await };
        let ended = tokio::select! {
            biased;
            ended = task => ended,
            value = body => return value,
        };
        self.0 = None;
        match ended {
            Err(error) => fail(error),
            Ok(()) => panic!("the controllers ended by themselves"),
        }
    }

    /// Stops them, and waits until they are gone.
    ///
    /// # Panics
    /// If a controller has panicked.
    pub async fn stop(mut self) {
        let Some(task) = self.0.take() else { return };
        task.abort();
        if let Err(error) = task.await
            && error.is_panic()
        {
            fail(error);
        }
    }
}

fn fail(error: JoinError) -> ! {
    match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(error) => panic!("the controllers ended: {error}"),
    }
}

impl Drop for RunningControllers {
    fn drop(&mut self) {
        let Some(task) = self.0.take() else { return };
        task.abort();
        // One that has failed is finished, so this waits for nothing.
        if !std::thread::panicking()
            && task.is_finished()
            && let Some(Err(error)) = unconstrained(task).now_or_never()
            && error.is_panic()
        {
            fail(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> RunningControllers {
        RunningControllers(Some(tokio::spawn(async { panic!("a controller failed") })))
    }

    #[tokio::test]
    #[should_panic(expected = "a controller failed")]
    async fn a_failure_is_seen_when_the_handle_goes() {
        let controllers = failing();
        tokio::task::yield_now().await;
        drop(controllers);
    }

    #[tokio::test]
    #[should_panic(expected = "a controller failed")]
    async fn a_failure_ends_what_is_waited_for() {
        failing().during(std::future::pending::<()>()).await;
    }

    #[tokio::test]
    #[should_panic(expected = "a controller failed")]
    async fn a_failure_is_seen_when_they_are_stopped() {
        let controllers = failing();
        tokio::task::yield_now().await;
        controllers.stop().await;
    }

    #[tokio::test]
    async fn without_a_failure_nothing_happens() {
        let mut controllers = RunningControllers(Some(tokio::spawn(std::future::pending())));
        assert_eq!(controllers.during(async { 3 }).await, 3);
        controllers.stop().await;
        drop(RunningControllers(Some(tokio::spawn(std::future::pending()))));
    }
}
