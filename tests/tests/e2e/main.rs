//! Both ends of `trunkline`, and raw peers that stand in for one of them, by subject.

mod calls {
    mod cancel_handle;
    mod cancellation;
    mod compression;
    mod credentials;
    mod deadlines;
    mod ends;
    mod everyday;
    mod heads;
    mod intercepted_ends;
    mod interceptors;
    mod large_messages;
    mod message_hooks;
    mod outcomes;
    mod retries;
    mod retry_scenarios;
    mod service_configs;
    mod specification;
}

mod channel {
    mod connecting;
    mod connections;
    mod defaults;
    mod dns;
    mod fleet;
    mod health;
    mod proxies;
    mod re_resolution;
    mod rolling_restart;
    mod simulated_fleet;
    mod testing;
    mod user_code;
}

mod hostile {
    mod clients;
    mod servers;
}

mod limits {
    mod budgets;
    mod header_lists;
    mod header_lists_at_client;
    mod load;
    mod numbers;
    mod resets;
    mod send_backlog;
}

mod observe {
    mod events;
    mod metrics;
    mod traces;
}

mod server {
    mod addresses;
    mod closing;
    mod handler_tasks;
    mod keepalive;
    mod lifecycle;
    mod services;
    mod sockets;
    mod threads;
}

mod tls {
    mod connections;
    mod reload;
}

mod wall_clock;
