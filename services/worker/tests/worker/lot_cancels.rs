//! Orders that are cancelled while their event is in the lot.

use std::time::Duration;

use minishop_worker::handlers::Handled;

use crate::handler::{Reaction, failed, scripted};
use crate::lot::{DEAD, kinds};
use crate::records::created;
use crate::shop::Shop;

async fn cancel(shop: &Shop) {
    shop.sql("UPDATE orders SET status = 'cancelled', version = 2").await;
}

pub async fn a_cancelled_order_drains_without_a_call(shop: Shop) {
    let handler = scripted(|_, _| failed());
    let (event, behind) = {
        let event = created();
        (event.clone(), event.same_customer())
    };
    let mut worker = shop.hands(handler.place());
    worker.stream(&[event.record()]).await;
    worker.lot().await;
    cancel(&shop).await;
    worker.stream(&[behind.record()]).await;
    shop.age(Duration::from_mins(1)).await;
    worker.drain().await;
    assert_eq!(handler.calls(), [event.order_id(), behind.order_id()], "the second attempt was spared, the next one came");
    assert_eq!(shop.order(event.order_id()).await.unwrap().status, "cancelled");
    assert_eq!(kinds(&shop.timeline(event.order_id()).await).last(), Some(&"ignored"));
    assert_eq!((shop.parked().await.len(), shop.published(DEAD).await.len()), (1, 0));
}

pub async fn an_order_cancelled_while_it_is_handled_stays_cancelled(shop: Shop) {
    for (handled, told) in
        [(Handled::Done, "fulfilled_after_cancel"), (Handled::Refused { message: "409".to_owned() }, "ignored")]
    {
        let handler = scripted(move |_, _| Reaction::When(handled.clone()));
        let event = created();
        let mut worker = shop.hands(handler.place());
        worker.stream(&[event.record()]).await;
        let meanwhile = async {
            handler.is_called(1).await;
            cancel(&shop).await;
            handler.open();
        };
        let (stepped, ()) = futures::join!(worker.lot.step(), meanwhile);
        assert_eq!(stepped.unwrap(), 1);
        let order = shop.order(event.order_id()).await.unwrap();
        assert_eq!((&*order.status, order.version), ("cancelled", 2));
        assert_eq!(kinds(&shop.timeline(event.order_id()).await).last(), Some(&told));
        let late = u64::from(told != "ignored");
        assert_eq!(worker.metric("lot_fulfilled_after_cancel_total"), late);
        assert_eq!((shop.parked().await.len(), shop.published(DEAD).await.len()), (0, 0));
    }
}
