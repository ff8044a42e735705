fn main() -> Result<(), trunkline_build::CompileError> {
    trunkline_build::Config::new()
        .rename(".meshtastic.AS3935_config", "LightningSettings")
        .rename(".shop.v1.Orders.getOrder", "GetOrderOld")
        .compile(["proto/meshtastic/admin.proto", "proto/shop/v1/orders.proto"])
}
