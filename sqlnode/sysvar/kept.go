package sysvar

import (
	"math"
	"strings"
)

// parseKept reads kept: lines of "name scope kind default", where scope is g,
// s or b, with r behind it for read-only, and kind is t, n (a number) or o
// (ON/OFF). A missing default is the empty text.
func parseKept(text string) []Var {
	scopes := map[byte]Scope{'g': Global, 's': Session, 'b': Both}
	kinds := map[string]Kind{"t": Text, "n": Uint, "o": Bool}
	var out []Var
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		v := Var{Name: f[0], Scope: scopes[f[1][0]], ReadOnly: strings.HasSuffix(f[1], "r"), Kind: kinds[f[2]]}
		v.Default = strings.Join(f[3:], " ")
		if strings.HasPrefix(v.Default, "-") && v.Kind == Uint {
			v.Kind, v.Min = Int, math.MinInt64
		}
		out = append(out, v)
	}
	return out
}

// kept are MySQL's variables that change nothing here.
const kept = `
activate_all_roles_on_login g o OFF
admin_address gr t
admin_port gr n 33062
authentication_windows_log_level g n 2
auto_generate_certs gr o ON
automatic_sp_privileges g o ON
avoid_temporal_upgrade g o OFF
back_log gr n 151
big_tables b o OFF
bind_address gr t 127.0.0.1
binlog_cache_size g n 32768
binlog_checksum g t CRC32
binlog_direct_non_transactional_updates b o OFF
binlog_encryption g o OFF
binlog_error_action g t ABORT_SERVER
binlog_expire_logs_seconds g n 2592000
binlog_format b t ROW
binlog_group_commit_sync_delay g n 0
binlog_group_commit_sync_no_delay_count g n 0
binlog_gtid_simple_recovery gr o ON
binlog_max_flush_queue_time g n 0
binlog_order_commits g o ON
binlog_row_event_max_size gr n 8192
binlog_row_image b t FULL
binlog_row_metadata g t MINIMAL
binlog_row_value_options b t
binlog_rows_query_log_events b o OFF
binlog_stmt_cache_size g n 32768
binlog_transaction_compression b o OFF
binlog_transaction_dependency_history_size g n 25000
binlog_transaction_dependency_tracking g t COMMIT_ORDER
block_encryption_mode b t aes-128-ecb
bulk_insert_buffer_size b n 8388608
caching_sha2_password_auto_generate_rsa_keys gr o ON
caching_sha2_password_digest_rounds gr n 5000
check_proxy_users g o OFF
concurrent_insert g t AUTO
connect_timeout g n 10
connection_memory_chunk_size b n 8912
core_file gr o OFF
create_admin_listener_thread gr o OFF
debug_sync s t
default_password_lifetime g n 0
default_table_encryption b o OFF
delay_key_write g t ON
delayed_insert_limit g n 100
delayed_insert_timeout g n 300
delayed_queue_size g n 1000
disabled_storage_engines gr t
disconnect_on_expired_password gr o ON
end_markers_in_json b o OFF
enforce_gtid_consistency g t OFF
eq_range_index_dive_limit b n 200
event_scheduler g t OFF
expire_logs_days g n 0
explicit_defaults_for_timestamp b o ON
external_user sr t
flush g o OFF
flush_time g n 0
ft_boolean_syntax g t + -><()~*:""&|
ft_max_word_len gr n 84
ft_min_word_len gr n 4
ft_query_expansion_limit gr n 20
ft_stopword_file gr t (built-in)
general_log g o OFF
general_log_file g t
generated_random_password_length b n 20
global_connection_memory_limit g n 9223372036854775807
global_connection_memory_tracking b o OFF
gtid_executed gr t
gtid_executed_compression_period g n 0
gtid_mode g t OFF
gtid_next s t AUTOMATIC
gtid_owned gr t
gtid_purged g t
have_compress gr t YES
have_crypt gr t NO
have_dynamic_loading gr t NO
have_geometry gr t NO
have_profiling gr t NO
have_query_cache gr t NO
have_rtree_keys gr t NO
have_statement_timeout gr t YES
have_symlink gr t DISABLED
histogram_generation_max_mem_size b n 20000000
host_cache_size g n 628
information_schema_stats_expiry b n 86400
init_file gr t
init_slave g t
init_replica g t
innodb_adaptive_flushing g o ON
innodb_adaptive_flushing_lwm g n 10
innodb_adaptive_hash_index g o ON
innodb_adaptive_hash_index_parts gr n 8
innodb_adaptive_max_sleep_delay g n 150000
innodb_api_bk_commit_interval g n 5
innodb_api_disable_rowlock gr o OFF
innodb_api_enable_binlog gr o OFF
innodb_api_enable_mdl gr o OFF
innodb_api_trx_level g n 0
innodb_autoextend_increment g n 64
innodb_autoinc_lock_mode gr n 2
innodb_buffer_pool_chunk_size gr n 134217728
innodb_buffer_pool_dump_at_shutdown g o ON
innodb_buffer_pool_dump_now g o OFF
innodb_buffer_pool_dump_pct g n 25
innodb_buffer_pool_filename g t ib_buffer_pool
innodb_buffer_pool_in_core_file g o ON
innodb_buffer_pool_instances gr n 1
innodb_buffer_pool_load_abort g o OFF
innodb_buffer_pool_load_at_startup gr o ON
innodb_buffer_pool_load_now g o OFF
innodb_buffer_pool_size g n 268435456
innodb_change_buffer_max_size g n 25
innodb_change_buffering g t all
innodb_checksum_algorithm g t crc32
innodb_cmp_per_index_enabled g o OFF
innodb_commit_concurrency g n 0
innodb_compression_failure_threshold_pct g n 5
innodb_compression_level g n 6
innodb_compression_pad_pct_max g n 50
innodb_concurrency_tickets g n 5000
innodb_data_file_path gr t ibdata1:12M:autoextend
innodb_data_home_dir gr t
innodb_deadlock_detect g o ON
innodb_dedicated_server gr o OFF
innodb_default_row_format g t dynamic
innodb_directories gr t
innodb_disable_sort_file_cache g o OFF
innodb_doublewrite g t ON
innodb_doublewrite_batch_size gr n 0
innodb_doublewrite_dir gr t
innodb_doublewrite_files gr n 2
innodb_doublewrite_pages gr n 4
innodb_extend_and_initialize g o ON
innodb_fast_shutdown g n 1
innodb_file_per_table g o ON
innodb_fill_factor g n 100
innodb_flush_log_at_timeout g n 1
innodb_flush_log_at_trx_commit g n 1
innodb_flush_method gr t fsync
innodb_flush_neighbors g n 0
innodb_flush_sync g o ON
innodb_flushing_avg_loops g n 30
innodb_force_load_corrupted gr o OFF
innodb_force_recovery gr n 0
innodb_fsync_threshold g n 0
innodb_ft_aux_table g t
innodb_ft_cache_size gr n 8000000
innodb_ft_enable_diag_print g o OFF
innodb_ft_enable_stopword b o ON
innodb_ft_max_token_size gr n 84
innodb_ft_min_token_size gr n 3
innodb_ft_num_word_optimize g n 2000
innodb_ft_result_cache_limit g n 2000000000
innodb_ft_server_stopword_table g t
innodb_ft_sort_pll_degree gr n 2
innodb_ft_total_cache_size gr n 640000000
innodb_ft_user_stopword_table b t
innodb_idle_flush_pct g n 100
innodb_io_capacity g n 200
innodb_io_capacity_max g n 2000
innodb_large_prefix g o ON
innodb_log_buffer_size g n 16777216
innodb_log_checksums g o ON
innodb_log_compressed_pages g o ON
innodb_log_file_size gr n 50331648
innodb_log_files_in_group gr n 2
innodb_log_group_home_dir gr t ./
innodb_log_spin_cpu_abs_lwm g n 80
innodb_log_spin_cpu_pct_hwm g n 50
innodb_log_wait_for_flush_spin_hwm g n 400
innodb_log_write_ahead_size g n 8192
innodb_log_writer_threads g o ON
innodb_lru_scan_depth g n 1024
innodb_max_dirty_pages_pct g n 90
innodb_max_dirty_pages_pct_lwm g n 10
innodb_max_purge_lag g n 0
innodb_max_purge_lag_delay g n 0
innodb_max_undo_log_size g n 1073741824
innodb_monitor_disable g t
innodb_monitor_enable g t
innodb_monitor_reset g t
innodb_monitor_reset_all g t
innodb_numa_interleave gr o OFF
innodb_old_blocks_pct g n 37
innodb_old_blocks_time g n 1000
innodb_online_alter_log_max_size g n 134217728
innodb_open_files g n 4000
innodb_optimize_fulltext_only g o OFF
innodb_page_cleaners gr n 1
innodb_page_size gr n 16384
innodb_parallel_read_threads s n 4
innodb_print_all_deadlocks g o OFF
innodb_print_ddl_logs g o OFF
innodb_purge_batch_size g n 300
innodb_purge_rseg_truncate_frequency g n 128
innodb_purge_threads gr n 1
innodb_random_read_ahead g o OFF
innodb_read_ahead_threshold g n 56
innodb_read_io_threads gr n 4
innodb_read_only gr o OFF
innodb_redo_log_archive_dirs g t
innodb_redo_log_capacity g n 104857600
innodb_redo_log_encrypt g o OFF
innodb_replication_delay g n 0
innodb_rollback_on_timeout gr o OFF
innodb_rollback_segments g n 128
innodb_sort_buffer_size gr n 1048576
innodb_spin_wait_delay g n 6
innodb_spin_wait_pause_multiplier g n 50
innodb_stats_auto_recalc g o ON
innodb_stats_include_delete_marked g o OFF
innodb_stats_method g t nulls_equal
innodb_stats_on_metadata g o OFF
innodb_stats_persistent g o ON
innodb_stats_persistent_sample_pages g n 20
innodb_stats_transient_sample_pages g n 8
innodb_status_output g o OFF
innodb_status_output_locks g o OFF
innodb_strict_mode b o ON
innodb_sync_array_size gr n 1
innodb_sync_spin_loops g n 30
innodb_table_locks b o ON
innodb_temp_data_file_path gr t ibtmp1:12M:autoextend
innodb_temp_tablespaces_dir gr t ./#innodb_temp/
innodb_thread_concurrency g n 0
innodb_thread_sleep_delay g n 10000
innodb_tmpdir b t
innodb_undo_directory gr t ./
innodb_undo_log_encrypt g o OFF
innodb_undo_log_truncate g o ON
innodb_undo_tablespaces g n 2
innodb_use_fdatasync g o OFF
innodb_use_native_aio gr o ON
innodb_validate_tablespace_paths gr o ON
innodb_version gr t 8.0.11
innodb_write_io_threads gr n 4
internal_tmp_mem_storage_engine b t TempTable
internal_tmp_disk_storage_engine g t InnoDB
join_buffer_size b n 262144
keep_files_on_create b o OFF
key_buffer_size g n 8388608
key_cache_age_threshold g n 300
key_cache_block_size g n 1024
key_cache_division_limit g n 100
keyring_operations g o ON
large_files_support gr o ON
large_page_size gr n 0
large_pages gr o OFF
lc_messages b t en_US
lc_messages_dir gr t
lc_time_names b t en_US
locked_in_memory gr o OFF
log_bin gr o OFF
log_bin_basename gr t
log_bin_index gr t
log_bin_trust_function_creators g o OFF
log_bin_use_v1_row_events g o OFF
log_error gr t stderr
log_error_services g t log_filter_internal; log_sink_internal
log_error_suppression_list g t
log_error_verbosity g n 2
log_output g t FILE
log_queries_not_using_indexes g o OFF
log_raw g o OFF
log_slave_updates gr o OFF
log_replica_updates gr o OFF
log_slow_admin_statements g o OFF
log_slow_extra g o OFF
log_slow_slave_statements g o OFF
log_statements_unsafe_for_binlog g o ON
log_syslog g o OFF
log_throttle_queries_not_using_indexes g n 0
log_timestamps g t UTC
long_query_time b t 10.000000
low_priority_updates b o OFF
mandatory_roles g t
master_info_repository g t TABLE
master_verify_checksum g o OFF
max_binlog_cache_size g n 18446744073709547520
max_binlog_size g n 1073741824
max_binlog_stmt_cache_size g n 18446744073709547520
max_connect_errors g n 100
max_delayed_threads b n 20
max_digest_length gr n 1024
max_error_count b n 1024
max_insert_delayed_threads b n 0
max_join_size b n 18446744073709551615
max_length_for_sort_data b n 4096
max_points_in_geometry b n 65536
max_relay_log_size g n 0
max_seeks_for_key b n 18446744073709551615
max_sort_length b n 1024
max_sp_recursion_depth b n 0
max_statement_time b t 0.000000
max_tmp_tables b n 32
max_write_lock_count g n 18446744073709551615
min_examined_row_limit b n 0
multi_range_count b n 256
myisam_data_pointer_size g n 6
myisam_max_sort_file_size g n 9223372036853727232
myisam_mmap_size gr n 18446744073709551615
myisam_recover_options gr t OFF
myisam_repair_threads b n 1
myisam_sort_buffer_size b n 8388608
myisam_stats_method b t nulls_unequal
myisam_use_mmap g o OFF
mysql_native_password_proxy_users g o OFF
mysqlx_bind_address gr t *
mysqlx_port gr n 33060
named_pipe gr o OFF
ndbinfo_version gr t
net_buffer_length b n 16384
net_read_timeout b n 30
net_retry_count b n 10
net_write_timeout b n 60
new b o OFF
ngram_token_size gr n 2
offline_mode g o OFF
old b o OFF
old_alter_table b o OFF
old_passwords b n 0
open_files_limit gr n 1048576
optimizer_max_subgraph_pairs b n 100000
optimizer_prune_level b n 1
optimizer_search_depth b n 62
optimizer_trace b t enabled=off,one_line=off
optimizer_trace_features b t greedy_search=on,range_optimizer=on,dynamic_range=on,repeated_subselect=on
optimizer_trace_limit b n 1
optimizer_trace_max_mem_size b n 1048576
optimizer_trace_offset b n -1
original_commit_timestamp s n 36028797018963968
original_server_version s n 999999
parser_max_mem_size b n 18446744073709551615
partial_revokes g o OFF
password_history g n 0
password_require_current g o OFF
password_reuse_interval g n 0
performance_schema gr o OFF
persist_only_admin_x509_subject gr t
persist_sensitive_variables_in_plaintext gr o ON
persisted_globals_load gr o ON
pid_file gr t
plugin_dir gr t
preload_buffer_size b n 32768
print_identified_with_as_hex b o OFF
profiling b o OFF
profiling_history_size b n 15
protocol_compression_algorithms g t uncompressed
proxy_user sr t
pseudo_replica_mode s o OFF
pseudo_slave_mode s o OFF
query_alloc_block_size b n 8192
query_cache_limit g n 1048576
query_cache_min_res_unit g n 4096
query_cache_size g n 0
query_cache_type b t OFF
query_cache_wlock_invalidate b o OFF
query_prealloc_size b n 8192
range_alloc_block_size b n 4096
range_optimizer_max_mem_size b n 8388608
rbr_exec_mode s t STRICT
read_buffer_size b n 131072
read_rnd_buffer_size b n 262144
regexp_stack_limit g n 8000000
regexp_time_limit g n 32
relay_log gr t
relay_log_basename gr t
relay_log_index gr t
relay_log_info_file gr t relay-log.info
relay_log_info_repository g t TABLE
relay_log_purge g o ON
relay_log_recovery gr o OFF
relay_log_space_limit gr n 0
report_host gr t
report_password gr t
report_port gr n 4000
report_user gr t
resultset_metadata s t FULL
rpl_read_size g n 8192
rpl_stop_slave_timeout g n 31536000
schema_definition_cache g n 256
secondary_engine_cost_threshold s t 100000.000000
secure_file_priv gr t
select_into_buffer_size b n 131072
select_into_disk_sync b o OFF
select_into_disk_sync_delay b n 0
server_id g n 1
server_id_bits gr n 32
server_uuid gr t 00000000-0000-0000-0000-000000000000
session_track_gtids b t OFF
session_track_schema b o ON
session_track_state_change b o OFF
session_track_system_variables b t time_zone, autocommit, character_set_client, character_set_results, character_set_connection
session_track_transaction_info b t OFF
sha256_password_auto_generate_rsa_keys gr o ON
sha256_password_private_key_path gr t private_key.pem
sha256_password_proxy_users g o OFF
sha256_password_public_key_path gr t public_key.pem
show_compatibility_56 g o OFF
show_create_table_skip_secondary_engine s o OFF
show_create_table_verbosity b o OFF
show_old_temporals b o OFF
skip_external_locking gr o ON
skip_name_resolve gr o ON
skip_networking gr o OFF
skip_replica_start gr o OFF
skip_show_database gr o OFF
skip_slave_start gr o OFF
slave_allow_batching g o OFF
slave_checkpoint_group g n 512
slave_checkpoint_period g n 300
slave_compressed_protocol g o OFF
slave_exec_mode g t STRICT
slave_load_tmpdir gr t /tmp
slave_max_allowed_packet g n 1073741824
slave_net_timeout g n 60
slave_parallel_type g t DATABASE
slave_parallel_workers g n 0
slave_pending_jobs_size_max g n 134217728
slave_preserve_commit_order g o OFF
slave_rows_search_algorithms g t INDEX_SCAN,HASH_SCAN
slave_skip_errors gr t OFF
slave_sql_verify_checksum g o ON
slave_transaction_retries g n 10
slave_type_conversions g t
slow_launch_time g n 2
slow_query_log g o OFF
slow_query_log_file g t
sort_buffer_size b n 262144
source_verify_checksum g o OFF
sql_slave_skip_counter g n 0
ssl_ca g t
ssl_capath g t
ssl_cert g t
ssl_cipher g t
ssl_crl g t
ssl_crlpath g t
ssl_fips_mode g t OFF
ssl_key g t
stored_program_cache g n 256
stored_program_definition_cache g n 256
sync_binlog g n 1
sync_frm g o ON
sync_master_info g n 10000
sync_relay_log g n 10000
sync_relay_log_info g n 10000
table_definition_cache g n 2000
table_encryption_privilege_check g o OFF
table_open_cache g n 4000
table_open_cache_instances gr n 16
tablespace_definition_cache g n 256
temptable_max_mmap g n 1073741824
temptable_max_ram g n 1073741824
temptable_use_mmap g o ON
thread_cache_size g n 9
thread_handling gr t one-thread-per-connection
thread_stack gr n 286720
tmpdir gr t /tmp
transaction_alloc_block_size b n 8192
transaction_allow_batching s o OFF
transaction_prealloc_size b n 4096
transaction_write_set_extraction b t XXHASH64
updatable_views_with_limit b t YES
use_secondary_engine s t ON
validate_password.check_user_name g o ON
validate_password.dictionary_file g t
validate_password.length g n 8
validate_password.mixed_case_count g n 1
validate_password.number_count g n 1
validate_password.policy g t MEDIUM
validate_password.special_char_count g n 1
windowing_use_high_precision b o ON
xa_detach_on_prepare b o ON
`
