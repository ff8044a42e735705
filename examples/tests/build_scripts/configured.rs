fn main() -> Result<(), trunkline_build::CompileError> {
    trunkline_build::Config::new()
        .include("../proto")
        .message_attribute(".shop.v1.Item", "#[derive(PartialOrd, Ord)]")
        .vec_bytes(".shop.v1.Order.signature")
        .btree_map(".shop.v1.Order.labels")
        .include_file("shop.rs")
        .compile(["../proto/shop/v1/orders.proto"])
}
