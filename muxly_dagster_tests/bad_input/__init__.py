"""Everything that can be wrong with what comes in, through a whole project: real files, real HTTP, a real destination.

Each test asks for the same four things: an error that says what to do, nothing lost once the trouble is over, nothing doubled in a
destination that keeps every change, and no secret in what is said.

What can be wrong -> the test, or the case of a parametrised one.

wrong YAML -> test_declarations: wrong YAML
unknown keys -> test_declarations: an unknown key
missing environment -> test_declarations: a missing variable
an API that answers HTML -> test_answers: HTML
half a JSON -> test_answers: half a JSON
401 -> test_answers: 401
403 -> test_answers: 403
404 -> test_answers: 404
429 for ever -> test_answers: 429 for ever
500 then fine -> test_answers: test_500_then_fine_is_not_worth_a_word
a page that repeats its cursor for ever -> test_answers: a cursor for ever
a record without its key -> test_records: no key
a duplicate key within a page -> test_records: test_a_key_that_stands_twice_in_a_page_is_one_record_and_the_last_counts
NaN -> test_records: NaN
10^30 -> test_records: test_a_number_beyond_64_bits_stays_exact
invalid UTF-8 -> test_records: invalid UTF-8
a field of 5 MB -> test_records: test_a_field_of_5_mb_arrives_whole
a page of 200 MB -> test_records: test_a_page_of_200_mb_is_read_piece_by_piece
a page beyond the limit -> test_answers: 300 MB announced
a type that changes in mid-pull -> test_records: test_a_type_that_changes_in_mid_pull_widens_the_column_here_and_there
a disk that is full (lake) -> test_disks: test_a_disk_that_is_full_for_the_lake
a disk that is full (state) -> test_disks: test_a_disk_that_is_full_for_the_state
two runs of one pull at once -> test_surroundings: test_two_runs_of_one_pull_at_once_are_one
a lake table deleted by hand -> test_surroundings: test_a_lake_table_deleted_by_hand_and_put_back
a destination table with a missing column -> test_surroundings: test_a_destination_table_with_a_missing_column_gets_it
a Postgres that goes away in mid-delivery -> test_surroundings: test_a_postgres_that_goes_away_in_mid_delivery
no traceback for the user's own mistakes -> test_declarations: test_the_command_says_it_without_a_traceback_and_exits_with_2

What connectors meet.

a wrong key file -> test_connectors: a wrong key file
an expired token -> test_connectors: an expired token
a refresh token that was withdrawn -> test_connectors: a refresh token that was withdrawn
a missing scope, named -> test_connectors: a missing scope
an unknown property -> test_connectors: an unknown property
a quota exhausted in mid-report -> test_connectors: a quota that runs out in mid-report
a view without rights -> test_connectors: a view without rights
a manifest with a host outside its hosts -> test_manifests: test_a_manifest_with_a_host_outside_its_hosts_asks_nobody
a redirect to another host with the credentials -> test_manifests: test_a_redirect_to_another_host_is_not_followed_with_the_credentials
an XML bomb -> test_manifests: an XML bomb
a zip bomb -> test_manifests: a zip bomb
a gzip bomb -> test_manifests: a gzip bomb
a file of 10 GB, bounded -> test_manifests: test_a_file_of_10_gb_is_left_out_where_it_is_too_large
a file of 10 GB, resumed -> test_manifests: test_a_file_of_10_gb_that_breaks_off_goes_on_there
a plugin that hangs at import -> test_manifests: test_a_plugin_that_hangs_at_import_holds_nobody_else_up
"""
