"""What there is: data sets, their images, labels and class names. No order, no decoding."""
