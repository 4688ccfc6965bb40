"""What Subscriber and AsyncSubscriber share: what is received, mended and handed out in order."""
