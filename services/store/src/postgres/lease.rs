//! Which process may publish from which shard: leases in a table, by the database's clock alone.
//!
//! An advisory lock lets one process at a time renew, so that the state does not change while it decides.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::super::outbox::ROLE_STRIDE;
use super::super::{Leadership, Led, Renewal, Result, Role, SHARDS_PER_ROLE};
use super::error::{Lost, failed};
use super::events::column;
use super::pool::Pool;

/// An advisory lock that nothing else in the database uses.
const LOCK: i64 = 0x4d53_484f_4c45_4144;

// This commit waits for the disk, unlike the relay's deletes: an old lease must not come back after a crash of the server.
const BEGIN: &str = "SELECT pg_advisory_xact_lock($1)::text";

const SIGN_OFF_DEAD: &str =
    "DELETE FROM relay_owner WHERE expires_at < clock_timestamp() OR (owner = $1 AND role <> ALL($2::smallint[]))";

const SIGN_IN: &str = "INSERT INTO relay_owner (owner, role, expires_at) \
    SELECT $1, role, clock_timestamp() + interval '10 s' FROM UNNEST($2::smallint[]) r(role) \
    ON CONFLICT (owner, role) DO UPDATE SET expires_at = excluded.expires_at";

const OWNERS: &str = "SELECT role, owner FROM relay_owner";

const LEASES: &str = "SELECT shard, CASE WHEN expires_at >= clock_timestamp() THEN owner END FROM outbox_shard ORDER BY shard";

// A lease that has expired begins a new epoch, even for its old owner.
const TAKE: &str = "UPDATE outbox_shard SET epoch = epoch + CASE WHEN owner IS DISTINCT FROM $1 OR expires_at < clock_timestamp() \
    OR shard = ANY($3) THEN 1 ELSE 0 END, owner = $1, expires_at = clock_timestamp() + interval '10 s' WHERE shard = ANY($2) \
    RETURNING shard, epoch, acknowledged";

const GIVE: &str = "UPDATE outbox_shard SET owner = NULL, expires_at = '-infinity' WHERE owner = $1 AND shard <> ALL($2)";

const SIGN_OFF: &str = "DELETE FROM relay_owner WHERE owner = $1";

/// Renews, takes and gives back leases.
pub(super) async fn lead(pool: &Pool, owner: &str, roles: &[Role], renewal: &Renewal) -> Result<Leadership> {
    in_turn(pool, "outbox.lead", async |connection| renew(connection, owner, roles, renewal).await).await
}

/// Gives back all leases of a process and signs it off.
pub(super) async fn release(pool: &Pool, owner: &str) -> Result<()> {
    in_turn(pool, "outbox.release", async |connection| {
        sqlx::query(GIVE).bind(owner).bind(Vec::<i16>::new()).execute(&mut *connection).await?;
        sqlx::query(SIGN_OFF).bind(owner).execute(connection).await.map(drop)
    })
    .await
}

async fn in_turn<T>(
    pool: &Pool,
    operation: &'static str,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T> {
    let run = pool.transaction(async |connection| {
        sqlx::query(BEGIN).bind(LOCK).execute(&mut *connection).await?;
        work(connection).await
    });
    run.await.map_err(failed(operation, Lost::Nothing))
}

async fn renew(connection: &mut PgConnection, owner: &str, roles: &[Role], renewal: &Renewal) -> sqlx::Result<Leadership> {
    let numbers = column(roles, |role| *role as i16);
    sqlx::query(SIGN_OFF_DEAD).bind(owner).bind(&numbers).execute(&mut *connection).await?;
    sqlx::query(SIGN_IN).bind(owner).bind(&numbers).execute(&mut *connection).await?;
    let owners: Vec<(i16, String)> = sqlx::query_as(OWNERS).fetch_all(&mut *connection).await?;
    let leases: Vec<(i16, Option<String>)> = sqlx::query_as(LEASES).fetch_all(&mut *connection).await?;
    let chosen = choose(owner, &owners, &leases, &renewal.finished);
    let shards: Vec<i16> = chosen.keys().copied().collect();
    sqlx::query(GIVE).bind(owner).bind(&shards).execute(&mut *connection).await?;
    let taken: Vec<(i16, i64, i64)> =
        sqlx::query_as(TAKE).bind(owner).bind(&shards).bind(&renewal.anew).fetch_all(connection).await?;
    let led = |(shard, epoch, acknowledged)| Led { shard, epoch, acknowledged, surplus: chosen[&shard] };
    let mut shards: Vec<Led> = taken.into_iter().map(led).collect();
    shards.sort_unstable_by_key(|led| led.shard);
    Ok(Leadership { shards, others_write: owners.iter().any(|(role, by)| numbers.contains(role) && by != owner) })
}

/// Chooses the shards to lead, each with whether it is surplus: own shards first, then free ones, up to a fair share of each
/// role. Own shards beyond the share are surplus, and kept until they are finished.
///
/// Free shards of a role that no live process has go to any process, so that their rows do not wait for one of the role.
fn choose(owner: &str, owners: &[(i16, String)], leases: &[(i16, Option<String>)], finished: &[i16]) -> BTreeMap<i16, bool> {
    let mut chosen = BTreeMap::new();
    for role in Role::ALL.map(|role| role as i16) {
        let alive = owners.iter().filter(|(played, _)| *played == role).count();
        let plays = owners.iter().any(|(played, by)| *played == role && by == owner);
        let all = usize::from(SHARDS_PER_ROLE.unsigned_abs());
        let share = match (alive, plays) {
            (0, _) => all,
            (_, false) => 0,
            (alive, true) => all.div_ceil(alive),
        };
        let of_role = leases.iter().filter(|(shard, _)| shard / ROLE_STRIDE == role);
        let own = of_role.clone().filter(|(_, by)| by.as_deref() == Some(owner)).map(|(shard, _)| *shard);
        let free = of_role.filter(|(_, by)| by.is_none()).map(|(shard, _)| *shard);
        chosen.extend(own.clone().chain(free).take(share).map(|shard| (shard, false)));
        chosen.extend(own.skip(share).filter(|shard| !finished.contains(shard)).map(|shard| (shard, true)));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(held: impl Fn(i16) -> Option<&'static str>) -> Vec<(i16, Option<String>)> {
        all().into_iter().map(|shard| (shard, held(shard).map(str::to_owned))).collect()
    }

    fn all() -> Vec<i16> {
        Role::ALL.into_iter().flat_map(Role::shards).collect()
    }

    fn owners(list: &[(Role, &str)]) -> Vec<(i16, String)> {
        list.iter().map(|(role, owner)| (*role as i16, (*owner).to_owned())).collect()
    }

    fn chosen(owner: &str, owners: &[(i16, String)], leases: &[(i16, Option<String>)], finished: &[i16]) -> (Vec<i16>, Vec<i16>) {
        let (surplus, kept): (Vec<_>, Vec<_>) =
            choose(owner, owners, leases, finished).into_iter().partition(|(_, surplus)| *surplus);
        let numbers = |shards: Vec<(i16, bool)>| shards.into_iter().map(|(shard, _)| shard).collect();
        (numbers(kept), numbers(surplus))
    }

    #[test]
    fn the_only_process_leads_every_shard() {
        assert_eq!(chosen("a", &owners(&[(Role::Api, "a")]), &table(|_| None), &[]), (all(), vec![]));
    }

    #[test]
    fn the_surplus_is_given_back_when_it_is_finished_and_a_live_lease_is_never_taken() {
        let both = owners(&[(Role::Api, "a"), (Role::Api, "b"), (Role::Worker, "w")]);
        let all_mine = table(|shard| (shard < 16).then_some("a"));
        assert_eq!(chosen("a", &both, &all_mine, &[]), (vec![0, 1], vec![2, 3]));
        assert_eq!(chosen("a", &both, &all_mine, &[2]), (vec![0, 1], vec![3]));
        assert_eq!(chosen("a", &both, &all_mine, &[0, 2, 3]), (vec![0, 1], vec![]), "a share is never given back");
        assert_eq!(chosen("b", &both, &all_mine, &[]), (vec![], vec![]));
        let half_free = table(|shard| (shard < 2).then_some("a"));
        assert_eq!(chosen("b", &both, &half_free, &[]), (vec![2, 3], vec![]));
    }

    #[test]
    fn a_role_that_came_back_gets_its_shards_back() {
        let back = owners(&[(Role::Api, "a"), (Role::Worker, "w")]);
        let shards = |role: Role| role.shards().collect::<Vec<_>>();
        assert_eq!(chosen("a", &back, &table(|_| Some("a")), &[]), (shards(Role::Api), shards(Role::Worker)));
        assert_eq!(chosen("a", &back, &table(|_| Some("a")), &shards(Role::Worker)), (shards(Role::Api), vec![]));
    }
}
