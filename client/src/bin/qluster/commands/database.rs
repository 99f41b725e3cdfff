//! The commands about databases: their settings, and the statements that do not write.

use qluster_client::model::{DatabaseStatements, NodeId, ReadonlyStatements};
use qluster_client::{DbConfig, DbSetting};

use crate::failure::Failure;
use crate::output::{Style, Tone, cell, optional, plain, table};
use crate::session::{Session, node};

/// Prints the statements that do not write.
pub(super) async fn readonly(session: &Session) -> Result<(), Failure> {
    let statements = session.cluster.readonly_statements().await?;
    session.out.show(&statements, |style| list(&statements, style))
}

fn list(ReadonlyStatements(databases): &ReadonlyStatements, style: Style) -> String {
    if databases.is_empty() {
        return "No statement is known not to write.".into();
    }
    let header = ["DATABASE", "STATEMENTS", "ALGORITHM", "VERSION", "POSTGRESQL", "GENERATION"];
    let row = |of: &DatabaseStatements| {
        let DatabaseStatements { database, algorithm, version, postgresql, generation, hashes, .. } = of;
        [plain(database), plain(hashes.len()), plain(algorithm), plain(version), plain(postgresql), plain(generation)]
    };
    let counts = table(style, header, databases.iter().map(row));
    format!("{counts}\n\nTo see the hashes: --output json")
}

/// Prints the settings of the database of node `id`, or of the leader: all, or those in `names`.
pub(super) async fn settings(session: &Session, id: Option<NodeId>, names: &[String]) -> Result<(), Failure> {
    let map = session.cluster.map().await?;
    let id = match id.or(map.leader) {
        Some(id) => id,
        None => session.cluster.leader().await?.id,
    };
    let api = node(&map, id)?.api_address();
    // The nodes of a cluster agree on whether they speak TLS.
    let addresses = session.cluster.addresses();
    let scheme = addresses.first().and_then(|known| known.split_once("://")).map_or("http", |(scheme, _)| scheme);
    let mut config = session.cluster.db_config(&format!("{scheme}://{api}")).await?;
    if let Some(unknown) = names.iter().find(|name| !config.settings.iter().any(|setting| setting.name == **name)) {
        return Err(Failure::refused(
            format!("node {id}'s database has no setting `{unknown}` that differs from its default"),
            "qluster db-config lists the settings that differ",
        ));
    }
    config.settings.retain(|setting| names.is_empty() || names.contains(&setting.name));
    session.out.show(&config, |style| show(&config, id, style))
}

fn show(config: &DbConfig, id: NodeId, style: Style) -> String {
    let row = |setting: &DbSetting| {
        let DbSetting { name, value, unit, source, pending_restart } = setting;
        let pending = if *pending_restart { cell("waits for a restart", Tone::Caution) } else { plain("") };
        [plain(name), plain(value), optional(unit.as_ref()), plain(source), pending]
    };
    let settings = table(style, ["SETTING", "VALUE", "UNIT", "SOURCE", ""], config.settings.iter().map(row));
    let DbConfig { version, system_identifier, .. } = config;
    format!("Node {id}: PostgreSQL {version}, system identifier {system_identifier}.\n\n{settings}")
}
