//! Tests of [`super`].
use serde_json::json;

use super::*;

#[test]
fn the_final_status_tells_the_exit_code_or_why_nothing_ran() {
    let of = |value| exit_code(&serde_json::from_value(value).unwrap());
    assert_eq!(of(json!({"status": "Success"})).unwrap(), 0);
    let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
                        "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
    assert_eq!(of(failed).unwrap(), 7);
    let absent = json!({"status": "Failure", "reason": "InternalError", "message": "no such file"});
    assert!(format!("{:#}", of(absent).unwrap_err()).contains("no such file"));
}
