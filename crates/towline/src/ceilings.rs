//! What a layer may cost, as the command line raises it.

use towline_images::Ceilings;

use crate::exit::Usage;

/// The ceilings of layers.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct CeilingArgs {
    /// Accept larger layers, as layer-bytes=2T or ratio=2000 (K, M, G, T are 1024s here); an error names the ceiling that it met; repeatable
    #[arg(
        long = "ceiling",
        value_name = "NAME=NUMBER",
        env = "TOWLINE_CEILINGS",
        value_delimiter = ','
    )]
    raised: Vec<String>,
}

impl CeilingArgs {
    /// The usual ones with what was raised.
    pub(crate) fn ceilings(&self) -> anyhow::Result<Ceilings> {
        let mut ceilings = Ceilings::default();
        for text in self.raised.iter().filter(|text| !text.is_empty()) {
            ceilings
                .set(text)
                .map_err(|why| anyhow::Error::new(Usage(format!("--ceiling: {why}"))))?;
        }
        Ok(ceilings)
    }

    /// Whether the command line raises one, and not the environment alone.
    pub(crate) fn is_given(&self) -> bool {
        let everywhere = std::env::var("TOWLINE_CEILINGS").unwrap_or_default();
        let raised = self.raised.iter().filter(|text| !text.is_empty());
        raised
            .map(String::as_str)
            .ne(everywhere.split(',').filter(|text| !text.is_empty()))
    }
}
