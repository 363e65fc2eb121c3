# What cargo says about test programs, by tier. Takes the arguments tier, native and vm, and for `programs` crate, target ("" is any) and metadata.

# Integration tests belong to the tier of their crate, all others to `unit`.
def tier_of($crate; $kind):
    def among($crates): $crates | split(" ") | index($crate);
    if $kind != ["test"] then "unit"
    elif among($ARGS.named.native) then "native"
    elif among($ARGS.named.vm) then "vm"
    else "unit" end;

# From the metadata, what `verify --list` shows.
def listed:
    .packages[] | .name as $crate | .targets[]
    | select(.test and tier_of($crate; .kind) == $ARGS.named.tier) | "  \($crate) \(.name)";

# From the messages of a build.
def programs:
    ($ARGS.named.metadata[0].packages | map({key: .id, value: .name}) | from_entries) as $crates
    | select(.executable != null and .profile.test)
    | $crates[.package_id] as $crate
    | select(tier_of($crate; .target.kind) == $ARGS.named.tier)
    | select($ARGS.named.crate | IN("", $crate))
    | select(.target.name as $name | $ARGS.named.target | IN("", $name))
    | "\(.manifest_path)\t\(.executable)";
