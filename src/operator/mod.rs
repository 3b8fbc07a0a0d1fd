//! The operator (being written).
use anyhow::Result;
/// x
/// # Errors
/// x
pub async fn run(_config: &std::path::Path) -> Result<()> {
    Ok(())
}
