package sysvar

import "time"

// SQLModes are the words of sql_mode in bit order.
var SQLModes = []string{
	"REAL_AS_FLOAT", "PIPES_AS_CONCAT", "ANSI_QUOTES", "IGNORE_SPACE", "NOT_USED", "ONLY_FULL_GROUP_BY",
	"NO_UNSIGNED_SUBTRACTION", "NO_DIR_IN_CREATE", "POSTGRESQL", "ORACLE", "MSSQL", "DB2", "MAXDB",
	"NO_KEY_OPTIONS", "NO_TABLE_OPTIONS", "NO_FIELD_OPTIONS", "MYSQL323", "MYSQL40", "ANSI",
	"NO_AUTO_VALUE_ON_ZERO", "NO_BACKSLASH_ESCAPES", "STRICT_TRANS_TABLES", "STRICT_ALL_TABLES",
	"NO_ZERO_IN_DATE", "NO_ZERO_DATE", "ALLOW_INVALID_DATES", "ERROR_FOR_DIVISION_BY_ZERO", "TRADITIONAL",
	"NO_AUTO_CREATE_USER", "HIGH_NOT_PRECEDENCE", "NO_ENGINE_SUBSTITUTION", "PAD_CHAR_TO_FULL_LENGTH",
	"TIME_TRUNCATE_FRACTIONAL",
}

var txnModes = []string{"pessimistic", "optimistic"}

// replicaReads are which replicas of a region are read, with the names of TiDB for
// closest, follower and leader.
var replicaReads = []string{"leader", "follower", "closest", "closest-replicas", "closest-adaptive", "leader-and-follower", "prefer-leader"}

// dmlTypes are how changes of data that are their own transaction are carried out.
var dmlTypes = []string{"standard", "bulk"}

var isolationLevels = []string{"READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"}

// What cairn_gc_life_time may be. Less than the minimum and ordinary statements fail; more
// than the maximum is for a hold of the safe point by name.
const (
	minGCLife = 10 * time.Second
	maxGCLife = 365 * 24 * time.Hour
)

// DefaultSQLMode is that of MySQL 8.0.
const DefaultSQLMode = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"

// defined lists the variables with a rule of their own; most of them change
// what a session does.
func defined() []Var {
	return []Var{
		{Name: "autocommit", Scope: Both, Kind: Bool, Default: "ON", Live: true},
		{Name: "sql_mode", Scope: Both, Kind: Set, Default: DefaultSQLMode, Words: SQLModes, Live: true},
		{Name: "time_zone", Scope: Both, Default: "SYSTEM", Live: true},
		{Name: "system_time_zone", Scope: Global, ReadOnly: true, Default: "UTC"},
		{Name: "character_set_client", Scope: Both, Default: "utf8mb4", Live: true},
		{Name: "character_set_connection", Scope: Both, Default: "utf8mb4", Live: true},
		{Name: "character_set_results", Scope: Both, Default: "utf8mb4", Live: true},
		{Name: "character_set_server", Scope: Both, Default: "utf8mb4"},
		{Name: "character_set_database", Scope: Both, Default: "utf8mb4"},
		{Name: "character_set_system", Scope: Global, ReadOnly: true, Default: "utf8mb3"},
		{Name: "character_set_filesystem", Scope: Both, Default: "binary"},
		{Name: "character_sets_dir", Scope: Global, ReadOnly: true, Default: ""},
		{Name: "collation_connection", Scope: Both, Default: "utf8mb4_0900_ai_ci", Live: true},
		{Name: "collation_server", Scope: Both, Default: "utf8mb4_0900_ai_ci"},
		{Name: "collation_database", Scope: Both, Default: "utf8mb4_0900_ai_ci"},
		{Name: "default_collation_for_utf8mb4", Scope: Both, Default: "utf8mb4_0900_ai_ci"},
		{Name: "max_allowed_packet", Scope: Both, Kind: Uint, Default: "67108864", Min: 1024, Max: 1 << 30, Live: true},
		{Name: "wait_timeout", Scope: Both, Kind: Uint, Default: "28800", Min: 1, Max: 31536000, Live: true},
		{Name: "interactive_timeout", Scope: Both, Kind: Uint, Default: "28800", Min: 1, Max: 31536000, Live: true},
		{Name: "max_execution_time", Scope: Both, Kind: Uint, Default: "0", Max: 1<<32 - 1, Live: true},
		{Name: "innodb_lock_wait_timeout", Scope: Both, Kind: Uint, Default: "50", Min: 1, Max: 1 << 30, Live: true},
		{Name: "cairn_txn_mode", Scope: Both, Kind: Enum, Default: "pessimistic", Words: txnModes, Live: true},
		{Name: "tidb_txn_mode", Scope: Both, Kind: Enum, Default: "pessimistic", Words: txnModes, Live: true},
		{Name: "lock_wait_timeout", Scope: Both, Kind: Uint, Default: "31536000", Min: 1, Max: 31536000},
		{Name: "transaction_isolation", Scope: Both, Kind: Enum, Default: "REPEATABLE-READ", Words: isolationLevels, Live: true},
		{Name: "tx_isolation", Scope: Both, Kind: Enum, Default: "REPEATABLE-READ", Words: isolationLevels, Live: true},
		{Name: "transaction_read_only", Scope: Both, Kind: Bool, Default: "OFF", Live: true},
		{Name: "tx_read_only", Scope: Both, Kind: Bool, Default: "OFF", Live: true},
		{Name: "cairn_replica_read", Scope: Both, Kind: Enum, Default: "closest-adaptive", Words: replicaReads, Live: true},
		{Name: "tidb_replica_read", Scope: Both, Kind: Enum, Default: "closest-adaptive", Words: replicaReads, Live: true},
		{Name: "cairn_dml_type", Scope: Both, Kind: Enum, Default: "standard", Words: dmlTypes, Live: true},
		{Name: "tidb_dml_type", Scope: Both, Kind: Enum, Default: "standard", Words: dmlTypes, Live: true},
		{Name: "cairn_split_table", Scope: Both, Kind: Bool, Default: "OFF", Live: true},
		{Name: "cairn_snapshot", Scope: Session, Live: true},
		{Name: "tidb_snapshot", Scope: Session, Live: true},
		{Name: "cairn_gc_life_time", Scope: Global, Kind: Duration, Default: "10m0s", Min: int64(minGCLife), Max: int64(maxGCLife), Live: true},
		{Name: "tidb_gc_life_time", Scope: Global, Kind: Duration, Default: "10m0s", Min: int64(minGCLife), Max: int64(maxGCLife), Live: true},
		{Name: "foreign_key_checks", Scope: Both, Kind: Bool, Default: "ON"},
		{Name: "unique_checks", Scope: Both, Kind: Bool, Default: "ON"},
		{Name: "sql_select_limit", Scope: Both, Kind: Uint, Default: "18446744073709551615", Live: true},
		{Name: "auto_increment_increment", Scope: Both, Kind: Uint, Default: "1", Min: 1, Max: 65535},
		{Name: "auto_increment_offset", Scope: Both, Kind: Uint, Default: "1", Min: 1, Max: 65535},
		{Name: "last_insert_id", Scope: Session, Kind: Uint, Default: "0", Live: true},
		{Name: "identity", Scope: Session, Kind: Uint, Default: "0", Live: true},
		{Name: "insert_id", Scope: Session, Kind: Uint, Default: "0"},
		{Name: "timestamp", Scope: Session, Kind: Float, Default: "0", Live: true},
		{Name: "rand_seed1", Scope: Session, Kind: Uint, Default: "0"},
		{Name: "rand_seed2", Scope: Session, Kind: Uint, Default: "0"},
		{Name: "div_precision_increment", Scope: Both, Kind: Uint, Default: "4", Max: 30, Live: true},
		{Name: "default_week_format", Scope: Both, Kind: Uint, Default: "0", Max: 7, Live: true},
		{Name: "group_concat_max_len", Scope: Both, Kind: Uint, Default: "1024", Min: 4, Live: true},
		{Name: "cte_max_recursion_depth", Scope: Both, Kind: Uint, Default: "1000", Max: 1<<32 - 1},
		{Name: "max_connections", Scope: Global, Kind: Uint, Default: "500", Min: 1, Max: 100000, Live: true},
		{Name: "max_user_connections", Scope: Both, Kind: Uint, Default: "0", Max: 1<<32 - 1},
		{Name: "max_prepared_stmt_count", Scope: Global, Kind: Uint, Default: "16382", Max: 4194304, Live: true},
		{Name: "warning_count", Scope: Session, ReadOnly: true, Kind: Uint, Default: "0", Live: true},
		{Name: "error_count", Scope: Session, ReadOnly: true, Kind: Uint, Default: "0", Live: true},
		{Name: "version", Scope: Global, ReadOnly: true, Default: "8.0.11-CairnDB"},
		{Name: "version_comment", Scope: Global, ReadOnly: true, Default: "CairnDB Server (Apache License 2.0)"},
		{Name: "version_compile_os", Scope: Global, ReadOnly: true, Default: "Linux"},
		{Name: "version_compile_machine", Scope: Global, ReadOnly: true, Default: "x86_64"},
		{Name: "version_compile_zlib", Scope: Global, ReadOnly: true, Default: "1.2.11"},
		{Name: "hostname", Scope: Global, ReadOnly: true, Default: "localhost"},
		{Name: "port", Scope: Global, ReadOnly: true, Kind: Uint, Default: "4000"},
		{Name: "socket", Scope: Global, ReadOnly: true, Default: ""},
		{Name: "datadir", Scope: Global, ReadOnly: true, Default: ""},
		{Name: "basedir", Scope: Global, ReadOnly: true, Default: ""},
		{Name: "lower_case_table_names", Scope: Global, ReadOnly: true, Kind: Uint, Default: "0"},
		{Name: "lower_case_file_system", Scope: Global, ReadOnly: true, Kind: Bool, Default: "OFF"},
		{Name: "license", Scope: Global, ReadOnly: true, Default: "Apache License 2.0"},
		{Name: "protocol_version", Scope: Global, ReadOnly: true, Kind: Uint, Default: "10"},
		{Name: "sql_auto_is_null", Scope: Both, Kind: Bool, Default: "OFF"},
		{Name: "sql_safe_updates", Scope: Both, Kind: Bool, Default: "OFF"},
		{Name: "sql_notes", Scope: Both, Kind: Bool, Default: "ON", Live: true},
		{Name: "sql_warnings", Scope: Both, Kind: Bool, Default: "OFF"},
		{Name: "sql_quote_show_create", Scope: Both, Kind: Bool, Default: "ON"},
		{Name: "sql_big_selects", Scope: Both, Kind: Bool, Default: "ON"},
		{Name: "sql_buffer_result", Scope: Both, Kind: Bool, Default: "OFF"},
		{Name: "sql_log_bin", Scope: Session, Kind: Bool, Default: "ON"},
		{Name: "sql_log_off", Scope: Both, Kind: Bool, Default: "OFF"},
		{Name: "sql_require_primary_key", Scope: Both, Kind: Bool, Default: "OFF"},
		{Name: "pseudo_thread_id", Scope: Session, Kind: Uint, Default: "0"},
		{Name: "require_secure_transport", Scope: Global, Kind: Bool, Default: "OFF", Live: true},
		{Name: "local_infile", Scope: Global, Kind: Bool, Default: "OFF"},
		{Name: "init_connect", Scope: Global, Default: ""},
		{Name: "read_only", Scope: Global, Kind: Bool, Default: "OFF"},
		{Name: "super_read_only", Scope: Global, Kind: Bool, Default: "OFF"},
		{Name: "default_storage_engine", Scope: Both, Default: "InnoDB"},
		{Name: "default_tmp_storage_engine", Scope: Both, Default: "InnoDB"},
		{Name: "storage_engine", Scope: Both, Default: "InnoDB"},
		{Name: "default_authentication_plugin", Scope: Global, ReadOnly: true, Default: "caching_sha2_password"},
		{Name: "have_ssl", Scope: Global, ReadOnly: true, Default: "YES"},
		{Name: "have_openssl", Scope: Global, ReadOnly: true, Default: "YES"},
		{Name: "tls_version", Scope: Global, Default: "TLSv1.2,TLSv1.3"},
		{Name: "cairn_commit_token", Scope: Session, ReadOnly: true, Default: "", Live: true},
		{Name: "completion_type", Scope: Both, Kind: Enum, Default: "NO_CHAIN", Words: []string{"NO_CHAIN", "CHAIN", "RELEASE"}, Live: true},
		{Name: "tmp_table_size", Scope: Both, Kind: Uint, Default: "16777216"},
		{Name: "max_heap_table_size", Scope: Both, Kind: Uint, Default: "16777216"},
		{Name: "optimizer_switch", Scope: Both, Default: "index_merge=on,index_merge_union=on,index_merge_sort_union=on,index_merge_intersection=on,engine_condition_pushdown=on,index_condition_pushdown=on,mrr=on,mrr_cost_based=on,block_nested_loop=on,batched_key_access=off,materialization=on,semijoin=on,loosescan=on,firstmatch=on,duplicateweedout=on,subquery_materialization_cost_based=on,use_index_extensions=on,condition_fanout_filter=on,derived_merge=on"},
	}
}
