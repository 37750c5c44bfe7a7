"""Selection without steps over images: elimination in a quadratic model of the loss."""
