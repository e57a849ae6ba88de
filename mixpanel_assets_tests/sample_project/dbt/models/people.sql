{{ config(materialized="table") }}

select 'us' as project, count(*) as people from {{ source("mixpanel", "profiles") }}
union all
select 'eu', count(*) from {{ source("mixpanel_eu", "profiles") }}
